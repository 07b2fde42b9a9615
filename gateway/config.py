"""Settings of a gateway."""

from __future__ import annotations

from dataclasses import dataclass

from broker.config import setting

RIGHTS = ("read", "send", "steer", "cancel", "tools", "approve", "admin")
"""What a token may allow in a session."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What a gateway may be told. Limits are for each connection unless they say otherwise."""

    host: str = setting("127.0.0.1", "address to listen on")
    port: int = setting(8080, "port to listen on; 0: any free one", minimum=0, maximum=65535)
    jwt_secret: str = setting("", "HS256 secret (at least 32 bytes) that tokens may be signed with")
    jwt_secret_file: str = setting("", "file that holds the HS256 secret")
    jwt_public_keys: str = setting("", "PEM files of RS256 or EdDSA public keys, separated by commas")
    jwt_issuer: str = setting("", "`iss` that tokens must have; empty: any")
    jwt_audience: str = setting("", "`aud` that tokens must have; empty: any")
    jwt_leeway_s: float = setting(10.0, "seconds by which clocks may differ", minimum=0)
    hello_timeout_s: float = setting(10.0, "seconds until the first frame must have come", minimum=0.1)
    heartbeat_s: float = setting(25.0, "seconds between pings", minimum=0.5)
    frame_bytes: int = setting(131_072, "bytes a client's frame may have", minimum=1024)
    input_bytes: int = setting(65_536, "bytes an input's content may have", minimum=1)
    subscriptions: int = setting(64, "sessions subscribed on a connection", minimum=1)
    commands_per_second: float = setting(50.0, "commands that a connection may send each second", minimum=0.1)
    commands_burst: int = setting(100, "commands that may come at once", minimum=1)
    command_queue: int = setting(64, "commands that wait for the ones before them", minimum=1)
    flood_refusals: int = setting(1000, "refused commands after which a connection is closed", minimum=1)
    bad_frames: int = setting(10, "bad frames after which a connection is closed", minimum=1)
    connections: int = setting(20_000, "connections in all", minimum=1)
    cors_origins: str = setting(
        "", "origins whose pages may use the HTTP API, separated by commas; `*`: all; empty: their own alone"
    )
    requests_per_second: float = setting(
        50.0, "HTTP requests that a user may make each second, and an address without a valid token", minimum=0.1
    )
    requests_burst: int = setting(100, "HTTP requests of one of them that may come at once", minimum=1)
    run_wait_s: float = setting(
        60.0,
        "seconds that an HTTP request waits for a run's answer, at most; then it is told where that will be",
        minimum=0,
    )
    ring_entries: int = setting(512, "entries of a session kept for resuming", minimum=1)
    ring_bytes: int = setting(1_048_576, "bytes of a session's entries kept for resuming", minimum=1024)
    outbox_bytes: int = setting(262_144, "unsent bytes beyond which a reader is held back", minimum=4096)
    slow_reader_s: float = setting(60.0, "seconds in which a held-back reader must take something", minimum=1)
    leave_grace_s: float = setting(
        10.0, "seconds that somebody is still listed who has left, so that a reload is no coming and going", minimum=0
    )
    presence_heartbeat_s: float = setting(
        2.0, "seconds between a gateway's signs of life; after three without, its people are gone", minimum=0.05
    )
    session_linger_s: float = setting(30.0, "seconds that a session nobody reads is kept in memory", minimum=0)
    ack_sample_s: float = setting(
        5.0,
        "seconds until one of a session's readers is asked again to say when it has handled an entry; 0: none is",
        minimum=0,
    )
    job_repair_s: float = setting(
        5.0, "seconds of silence in a session with work until its job is offered again", minimum=0.1
    )
    command_timeout_s: float = setting(8.0, "seconds until a command is answered `unavailable`", minimum=0.1)
    drain_s: float = setting(10.0, "seconds within which connections are closed on SIGTERM", minimum=0)
    drain_delay_s: float = setting(
        0.0,
        "seconds on SIGTERM until the first is closed: as long as a load balancer takes to see `/readyz`",
        minimum=0,
    )
    drain_per_second: float = setting(
        200.0, "connections closed each second on SIGTERM; more if they would not be closed within the time", minimum=1
    )
