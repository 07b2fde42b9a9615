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
    processes: int = setting(
        1, "gateway processes on this machine that share the port, each with its own limits", minimum=1, maximum=64
    )
    process_port: int = setting(
        0,
        "with several processes: port of the first one's own `/metrics`, `/healthz` and `/readyz`; the others have the "
        "next ones; 0: any free ones, which the log names",
        minimum=0,
        maximum=65472,
    )
    jwt_secret: str = setting("", "HS256 secret (at least 32 bytes) that tokens may be signed with")
    jwt_secret_file: str = setting("", "file that holds the HS256 secret")
    jwt_public_keys: str = setting("", "PEM files of RSA, P-256, P-384 or Ed25519 public keys, separated by commas")
    jwks: str = setting(
        "",
        "key sets (JWKS) of issuers, separated by commas: each a URL or a file, before it, with a space, the issuer whose "
        "tokens alone it is for, and after it the tenant that these tokens are for",
    )
    jwks_max_age_s: float = setting(300.0, "seconds after which a key set is fetched again", minimum=1)
    jwks_min_interval_s: float = setting(
        10.0, "seconds between two fetches of a key set at least, also when tokens name keys not known", minimum=0.1
    )
    jwks_stale_s: float = setting(
        86_400.0, "seconds for which the keys of a set that cannot be fetched any more are used", minimum=1
    )
    jwks_timeout_s: float = setting(5.0, "seconds that a fetch of a key set may take", minimum=0.1)
    jwt_issuer: str = setting("", "`iss` that tokens must have, one of these, separated by commas; empty: any")
    jwt_audience: str = setting("", "`aud` that tokens must have; empty: any")
    tenants: str = setting(
        "", "tenants whose tokens are taken, separated by commas, `-`: the default one; empty: all, and the default one"
    )
    jwt_leeway_s: float = setting(10.0, "seconds by which clocks may differ", minimum=0)
    hello_timeout_s: float = setting(10.0, "seconds until the first frame must have come", minimum=0.1)
    heartbeat_s: float = setting(
        25.0,
        "seconds without a byte from a client until it is pinged; one that answers nothing for half as long is gone",
        minimum=0.5,
    )
    frame_bytes: int = setting(131_072, "bytes a client's frame may have", minimum=1024)
    chat_bytes: int = setting(
        4_194_304,
        "bytes of a request that brings its conversation along, as those of AG-UI and the AI SDK do",
        minimum=1024,
    )
    input_bytes: int = setting(65_536, "bytes an input's content may have", minimum=1)
    history_chars: int = setting(
        1_048_576, "characters of text after which a reply to `history` ends; one message is always in it", minimum=1
    )
    subscriptions: int = setting(64, "sessions subscribed on a connection", minimum=1)
    commands_per_second: float = setting(50.0, "commands that a connection may send each second", minimum=0.1)
    commands_burst: int = setting(100, "commands that may come at once", minimum=1)
    command_queue: int = setting(64, "commands that wait for the ones before them", minimum=1)
    command_queue_bytes: int = setting(
        262_144, "bytes of the same, beyond which one that others are before is refused", minimum=1024
    )
    bytes_per_second: float = setting(
        2_097_152.0, "bytes of frames that a connection may send each second", minimum=1024
    )
    bytes_burst: int = setting(8_388_608, "bytes of frames that may come at once", minimum=1024)
    inputs_per_second: float = setting(
        50.0, "inputs that a user may send each second, over all connections and requests to a gateway", minimum=0.1
    )
    inputs_burst: int = setting(100, "inputs of a user that may come at once", minimum=1)
    joins_per_second: float = setting(
        100.0, "sessions that a user may begin to read each second, over all connections to a gateway", minimum=0.1
    )
    joins_burst: int = setting(1000, "joins of a user that may come at once", minimum=1)
    catchup_queue: int = setting(
        2000, "reads of the log that may wait for others; who joins then is told to wait", minimum=1
    )
    flood_refusals: int = setting(
        1000, "refused commands within `flood_s` after which a connection is closed", minimum=1
    )
    flood_s: float = setting(
        60.0,
        "seconds in which so many are a flood; and seconds without a pause in which a connection sends more than "
        "`pace_factor` lets it, after which it is closed",
        minimum=1,
    )
    pace_factor: float = setting(
        2.0,
        "times of `commands_per_second` and `bytes_per_second`, and of their bursts, that are read of a connection, of "
        "frames of any kind and of HTTP requests; what is more waits, and meanwhile the connection is not read",
        minimum=1,
    )
    user_frames_per_second: float = setting(
        1000.0,
        "frames of any kind that are read each second of all connections of a user to a gateway (16 KiB of one are a "
        "further one); what is more waits",
        minimum=1,
    )
    address_frames_per_second: float = setting(
        2000.0,
        "the same of all sockets of one address (IPv6: of one network of 64 bits) that have not said `hello`, with HTTP "
        "requests, each of which is four; 0: as many as come. Behind a proxy it needs `trusted_proxies`",
        minimum=0,
    )
    shared_burst_s: float = setting(
        2.0, "seconds of what a user's connections, or an address's, may send that may come at once", minimum=0.1
    )
    sockets_per_second: float = setting(
        500.0,
        "new sockets that are begun to be read each second, of each address in its turn; what is more waits",
        minimum=1,
    )
    sockets_burst: float = setting(1000.0, "new sockets that may come at once", minimum=1)
    turn_frames: int = setting(
        16, "frames that are taken in one turn of the event loop, of all connections; the rest in the next", minimum=1
    )
    turn_share: float = setting(
        0.6,
        "share of a gateway's time that it takes from clients while more comes than turns hold; the rest is for what it "
        "sends them",
        minimum=0.05,
        maximum=1,
    )
    bad_frames: int = setting(10, "bad frames after which a connection is closed", minimum=1)
    connections: int = setting(20_000, "connections in all", minimum=1)
    greeting_connections: int = setting(
        2000, "connections, of those, that have not said `hello` yet, in all", minimum=1
    )
    user_connections: int = setting(1000, "connections of one user; 0: as many as there is room for", minimum=0)
    address_connections: int = setting(
        0,
        "connections from one address (IPv6: from one network of 64 bits); 0: as many as there is room for. Behind a proxy "
        "it needs `trusted_proxies`",
        minimum=0,
    )
    trusted_proxies: str = setting(
        "",
        "networks of proxies that are believed what they say of clients in `X-Forwarded-For` and `X-Forwarded-Host`, "
        "separated by commas: `10.0.0.0/8,fd00::/8`; empty: nobody is",
    )
    sockets: int = setting(
        25_000, "open sockets of clients in all, also those that have asked for nothing yet; more are cut", minimum=1
    )
    http_head_s: float = setting(
        10.0, "seconds until the first request of a socket must have come, with all of its headers", minimum=0.1
    )
    http_idle_s: float = setting(
        75.0,
        "seconds for which a socket is kept that waits for a further request: longer than a proxy in front keeps its own",
        minimum=0.1,
    )
    tenant_sessions: int = setting(0, "sessions that each tenant may have; 0: as many as they like", minimum=0)
    tenant_bytes: int = setting(
        0, "bytes that the records and attachments of each tenant may take; 0: as many as they like", minimum=0
    )
    tenant_limits: str = setting(
        "",
        "tenants that have limits of their own, separated by commas: `acme sessions=1000 bytes=10737418240`; `-`: the "
        "default one; 0: as many as they like",
    )
    usage_s: float = setting(
        5.0, "seconds between two looks at what open sessions take, of tenants that have a limit", minimum=0.1
    )
    cors_origins: str = setting(
        "",
        "origins whose pages may use the HTTP API and WebSockets, separated by commas; `*`: all; empty: their own alone",
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
    kernel_unsent_bytes: int = setting(
        131_072,
        "bytes that the kernel takes of a connection before it has sent them (`TCP_NOTSENT_LOWAT`, on Linux); "
        "0: as many as it likes, which is 4 MB for each reader that has stopped",
        minimum=0,
    )
    kernel_unread_bytes: int = setting(
        262_144,
        "bytes that the kernel keeps of what has come from a connection and was not read yet (`SO_RCVBUF`); "
        "0: as many as it likes, which on Linux is 6 MB for each client that sends more than it may",
        minimum=0,
    )
    slow_reader_s: float = setting(
        60.0, "seconds in which a client that has something to take must take some of it", minimum=1
    )
    leave_grace_s: float = setting(
        10.0, "seconds that somebody is still listed who has left, so that a reload is no coming and going", minimum=0
    )
    presence_heartbeat_s: float = setting(
        2.0, "seconds between a gateway's signs of life; after three without, its people are gone", minimum=0.05
    )
    schedule_ahead_s: float = setting(
        31_622_400.0, "seconds that an input may be scheduled ahead, at most", minimum=1, maximum=3_155_760_000
    )
    schedule_keep_s: float = setting(
        86_400.0,
        "seconds that a scheduled input which is due waits for a closed session to be opened, or for room in its queue; "
        "then it is taken back",
        minimum=0,
    )
    schedule_at_once: int = setting(32, "scheduled inputs that a gateway makes due at once", minimum=1)
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
