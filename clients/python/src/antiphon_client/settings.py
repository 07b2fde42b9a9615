"""The limits and times of a client, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Units are last in the names. The defaults suit a program with a person in front of it."""

    pending_commands: int = 256
    """Commands that may wait for their reply, through an outage too; more: `CommandQueueFull`."""
    command_sends: int = 32
    """How often one command is put on a socket before it fails: the connection died each time."""
    command_retries: int = 5
    """How often a command is repeated that the gateway refused as `unavailable` and the like."""

    outbox_inputs: int = 256
    """Messages of one session that wait in `Session.outbox`; more: `CommandQueueFull`."""
    decisions: int = 8
    """Approvals of one session that its `decide` is asked about at once; more wait."""

    buffer_events: int = 1024
    """Events of one session that wait for `events()`."""
    buffer_bytes: int = 4 * 1024 * 1024
    """The same, by the size of their frames (one frame may pass it)."""
    transcript_messages: int = 10_000
    """Messages kept in `Session.messages`; the oldest go first, `history()` has them."""
    chain_retries: int = 8
    """How often one place is read again because the chain broke there, before `ChainBroken`."""

    tool_executions: int = 8
    """Calls of tools that one session executes at once; more are left to others, or wait."""
    tool_lease_ms: int = 15_000
    """How long a claim lasts (1,000 to 120,000); it is renewed every third of that."""
    tool_claims: int = 6
    """How often a call is claimed that is not for this client yet, before it is left to others."""
    tool_release_timeout_s: float = 2.0
    """How long closing may take to let go of the calls that are being executed."""

    first_connect_timeout_s: float | None = 10.0
    """How long `async with Client(...)` tries before it raises `ConnectFailed`.

    None: it does not wait. The client is there at once and connects when that can be done; what is
    sent until then waits."""
    connect_timeout_s: float = 10.0
    """How long one attempt may take, from the TCP connection to `welcome`."""
    reconnect_attempts: int | None = None
    """Attempts in a row before the client gives up; None: for as long as it is open."""
    backoff_base_s: float = 0.25
    backoff_cap_s: float = 30.0
    stable_after_s: float = 10.0
    """A connection that lasted this long, or brought anything new, resets the back-off."""
    close_timeout_s: float = 1.0
    """How long the closing handshake may take."""
    liveness_check_s: float | None = 5.0
    """How often to look whether this machine has slept or changed its network; None: never."""
    liveness_slack_s: float = 5.0
    """So much longer than that since the last look: it has slept (or this process was stopped)."""
    liveness_timeout_s: float = 5.0
    """How long a gateway may take to answer when a connection is in doubt, before that is cut."""

    transfer_timeout_s: float = 60.0
    """How long an upload or a download may stand still."""
    refresh_before_s: float = 30.0
    """A provider's token is renewed this long before it expires (or at half its life)."""
    max_frame_bytes: int = 32 * 1024 * 1024
    """The largest frame taken from a gateway; a page of `history` holds whole messages."""
