"""The HTTP API: requests to commands, replies to answers. What a command does is the same as over a WebSocket."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
import structlog
from aiohttp import hdrs, web

from broker.errors import ErrorCode, Refused
from broker.versions import VERSION
from gateway.addresses import counted_as
from gateway.agui.serving import AgUi
from gateway.auth import Identity, Right
from gateway.http.administration import Administration
from gateway.http.answering import Admit, input_id_of, json_answer
from gateway.http.attachments import AttachmentApi
from gateway.http.carrying import carry_out, subscription, within
from gateway.http.cors import Cors
from gateway.http.declarations import EVENT_STREAM, JSON, Operation
from gateway.http.operations import PAGE_DEFAULT
from gateway.http.pages import read_page
from gateway.http.problems import MEDIA_TYPE, HttpCode, Problem, problem_of
from gateway.http.requests import Call, Checks, accepted, read_call
from gateway.http.routing import routes
from gateway.http.runs import Runs
from gateway.http.streams import STREAM_HEADERS, EventStream
from gateway.http.ui_messages.chats import Chats
from gateway.origins import Origins
from gateway.services import Services
from gateway.websocket import bearer

Handler = Callable[[Call], Awaitable[web.StreamResponse]]

_log = structlog.get_logger("antiphon.http")

_PREFIX = "/v1/"


class HttpApi:
    """Routes for the gateway's application, and the middleware that they need."""

    def __init__(self, services: Services, admit: Admit) -> None:
        settings = services.settings
        self._services = services
        self._admit = admit
        self._cors = Cors(Origins(settings.cors_origins))
        self._limits = services.admission.requests
        self._checks = Checks()
        administration = Administration(services)
        runs = Runs(services, admit)
        chats = Chats(services, admit)
        attachments = AttachmentApi(services.attachments, services.metrics)
        self._handlers: dict[str, Handler] = {
            "runAgent": AgUi(services, admit).run,
            "createRun": runs.create,
            "createRuns": runs.create_many,
            "getRun": runs.get,
            "uploadAttachment": attachments.upload,
            "listAttachments": attachments.listed,
            "downloadAttachment": attachments.download,
            "deleteAttachment": attachments.remove,
            "getSession": self._look,
            "readEvents": self._events,
            "subscribe": self._subscribe,
            "sendChat": chats.send,
            "resumeChat": chats.resume,
            "listChatMessages": chats.messages,
            "createRevocation": administration.revoke,
            "listRevocations": administration.revocations,
            "readAudit": administration.audit,
        }

    def add_to(self, app: web.Application) -> None:
        app.middlewares.append(self._middleware)
        app.on_response_prepare.append(self._allow_origins)
        routes(app, self._route)
        app.router.add_get("/openapi.json", _openapi)
        app.router.add_get("/asyncapi.json", _asyncapi)

    def _route(self, operation: Operation) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        handler = self._handlers.get(operation.name, self._command)
        settings = self._services.settings
        body_bytes = settings.chat_bytes if operation.large else settings.frame_bytes

        async def handle(request: web.Request) -> web.StreamResponse:
            who = await self._identify(request)
            call = await read_call(operation, request, who, self._checks, body_bytes)
            return await handler(call)

        return handle

    # --- around every request ----------------------------------------------------------------------------------------

    @web.middleware
    async def _middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not request.path.startswith(_PREFIX) or request.path == "/v1/connect":
            return await handler(request)
        try:
            response = await handler(request)
        except web.HTTPMethodNotAllowed as error:
            response = self._other_method(request, error)
        except web.HTTPNotFound:
            response = _answer_problem(Problem(HttpCode.NOT_FOUND, f"there is nothing at {request.path[:100]}"))
        except Refused as refusal:
            self._services.metrics.refused(refusal)
            response = _answer_problem(problem_of(refusal))
        except Problem as problem:
            response = _answer_problem(problem)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 (a fault in one request must not end others on its connection)
            response = self._fault(request)
        return response

    def _fault(self, request: web.Request) -> web.Response:
        connection = f"r-{secrets.token_hex(5)}"
        _log.exception("a request failed", connection=connection, method=request.method)
        if request.writer.output_size and request.transport is not None:
            # It has begun to answer, and cannot say anything else any more.
            request.transport.abort()
        return _answer_problem(Problem(ErrorCode.INTERNAL, f"a fault of the server; it is logged as {connection}"))

    async def _allow_origins(self, request: web.Request, response: web.StreamResponse) -> None:
        if request.path.startswith(_PREFIX):
            response.headers.update(self._cors.headers(request.headers.get(hdrs.ORIGIN)))

    def _other_method(self, request: web.Request, error: web.HTTPMethodNotAllowed) -> web.Response:
        methods = ", ".join(sorted({*error.allowed_methods, hdrs.METH_OPTIONS}))
        if request.method == hdrs.METH_OPTIONS:
            origin = request.headers.get(hdrs.ORIGIN)
            return web.Response(status=204, headers={"Allow": methods, **self._cors.preflight(origin, methods)})
        text = f"here is only {methods}"
        return _answer_problem(Problem(HttpCode.METHOD_NOT_ALLOWED, text, headers={"Allow": methods}))

    async def _identify(self, request: web.Request) -> Identity:
        """Who asks, if they may ask just now. Raises Refused."""
        now, address = time.monotonic(), self._services.admission.address_of(request)
        try:
            token = bearer(request)
            if token is None:
                raise Refused(ErrorCode.UNAUTHORIZED, "give a token in the Authorization header, as Bearer")
            who = await self._services.authenticator.identify(token, address)
        except Refused:
            # Guessing is limited, too; who has a token is not held up by who has none at the same address.
            self._limits.require(f"address {counted_as(address)}", now)
            raise
        self._limits.require(f"user {who.caller}", now)
        who.check()
        return who

    # --- operations that are commands ----------------------------------------------------------------------------------

    async def _command(self, call: Call) -> web.Response:
        reply = await carry_out(self._services, call.operation.op, _with_ids(call), call.who)
        status, headers = _outcome(call, reply)
        return json_answer(orjson.dumps(reply), status, headers)

    async def _look(self, call: Call) -> web.Response:
        async with within(self._services, "look"):
            found = await self._services.commands.look(call.session, call.who)
        if found is None:
            raise Problem(HttpCode.NOT_FOUND, "nobody has written to this session")
        return json_answer(orjson.dumps(found))

    # --- reading -------------------------------------------------------------------------------------------------------

    async def _events(self, call: Call) -> web.StreamResponse:
        if _format(call) == "sse":
            return await self._subscribe(call)
        command = subscription(call.fields)
        call.who.require(Right.READ, command.session)
        async with within(self._services, "page"):
            page = await read_page(self._services, command, call.who, call.extra.get("limit", PAGE_DEFAULT))
        return json_answer(page, headers={"Vary": "Accept"})

    async def _subscribe(self, call: Call) -> web.StreamResponse:
        command = subscription(call.fields)
        if call.request.method == hdrs.METH_HEAD:
            call.who.require(Right.READ, command.session)
            return web.Response(headers=STREAM_HEADERS)
        device = call.extra.get("device") or call.fields.get("device")
        stream = EventStream(call.request, self._services, call.who, device)
        with self._admit(stream) as log_available:
            return await stream.serve(command, log_available=log_available)


async def _openapi(request: web.Request) -> web.Response:
    from gateway.http.openapi import document

    return _document(request, orjson.dumps(document(VERSION)))


async def _asyncapi(request: web.Request) -> web.Response:
    from gateway.http.asyncapi import document

    return _document(request, orjson.dumps(document(VERSION)))


def _document(request: web.Request, body: bytes) -> web.Response:
    """A document that changes with the server's version alone."""
    etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
    if etag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers={"Content-Type": JSON, **headers})


def _answer_problem(problem: Problem) -> web.Response:
    headers = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", **problem.all_headers()}
    return web.Response(body=problem.body(), status=problem.status, headers=headers)


def _with_ids(call: Call) -> dict[str, Any]:
    """The command's fields, with the ids that a client of HTTP may leave to a header, or to the server."""
    fields = dict(call.fields)
    match call.operation.name:
        case "createSession":
            fields.setdefault("session", f"s-{secrets.token_hex(12)}")
        case "sendInput" | "returnLane":
            fields["inputId"] = input_id_of(call)
    return fields


def _format(call: Call) -> str:
    wished = call.extra.get("format")
    if wished is not None:
        return str(wished)
    chosen = accepted(call.request.headers.get(hdrs.ACCEPT), (JSON, EVENT_STREAM))
    if chosen is None:
        raise Problem(HttpCode.NOT_ACCEPTABLE, f"there is only {JSON} and {EVENT_STREAM}")
    return "sse" if chosen == EVENT_STREAM else "json"


def _outcome(call: Call, reply: Mapping[str, Any]) -> tuple[int, dict[str, str]]:
    """The status of an answer, and its headers."""
    created = 200 if reply.get("duplicate") else 201
    match call.operation.name:
        case "createSession" | "forkSession":
            return created, {"Location": f"/v1/sessions/{reply['session']}"}
        case "sendInput":
            run_id = reply["runId"]
            place = f"/runs/{run_id}" if run_id is not None else "/messages"
            return created, {"Location": f"/v1/sessions/{call.session}{place}"}
        case _:
            return 200, {}
