"""asyncio client of Antiphon sessions: resume from any cursor, send with receipts; `.sync` is for scripts."""

from .answers import Answer
from .attachments import Attachment
from .buffer import EventStream
from .changes import InputApplied, Outcome
from .client import Client
from .config import Config, RoleLimits
from .deciding import Choice, Decide
from .errors import (
    AntiphonError,
    AttachmentRefused,
    ChainBroken,
    ClientClosed,
    CommandQueueFull,
    CommandRefused,
    ConnectFailed,
    ConnectionClosed,
    ContentTooLarge,
    CursorInvalid,
    FrameTooLarge,
    InputNotApplied,
    ModeRefused,
    NotAllowed,
    NotFirst,
    NotFound,
    NotYours,
    QueueFull,
    RoleRequired,
    RunFailed,
    ScheduleRefused,
    SessionClosed,
    SessionFull,
    TooLate,
    Unauthorized,
    ValueRefused,
)
from .fold import Fold
from .following import View
from .hosting import Status
from .listing import SessionInfo, WaitingHandoff
from .model import Approval, Call, Claim, Handoff, Input, Lane, Run, Scheduled, Vote
from .outbox import Submission, Unsent
from .presence import Device, Participant, Presence
from .protocol import CaughtUp, Entry, Gap, Reset, SessionEvent, Snapshot
from .receipts import Receipt
from .session import Session
from .settings import Settings
from .signatures import tool
from .state import State
from .steering import Created, HistoryPage, Response
from .tokens import TokenProvider
from .tools import Execution, ThreadExecution, Tool, threaded
from .transcript import Message, Transcript

__all__ = [
    "Answer",
    "AntiphonError",
    "Approval",
    "Attachment",
    "AttachmentRefused",
    "Call",
    "CaughtUp",
    "ChainBroken",
    "Choice",
    "Claim",
    "Client",
    "ClientClosed",
    "CommandQueueFull",
    "CommandRefused",
    "Config",
    "ConnectFailed",
    "ConnectionClosed",
    "ContentTooLarge",
    "Created",
    "CursorInvalid",
    "Decide",
    "Device",
    "Entry",
    "EventStream",
    "Execution",
    "Fold",
    "FrameTooLarge",
    "Gap",
    "Handoff",
    "HistoryPage",
    "Input",
    "InputApplied",
    "InputNotApplied",
    "Lane",
    "Message",
    "ModeRefused",
    "NotAllowed",
    "NotFirst",
    "NotFound",
    "NotYours",
    "Outcome",
    "Participant",
    "Presence",
    "QueueFull",
    "Receipt",
    "Reset",
    "Response",
    "RoleLimits",
    "RoleRequired",
    "Run",
    "RunFailed",
    "ScheduleRefused",
    "Scheduled",
    "Session",
    "SessionClosed",
    "SessionEvent",
    "SessionFull",
    "SessionInfo",
    "Settings",
    "Snapshot",
    "State",
    "Status",
    "Submission",
    "ThreadExecution",
    "TokenProvider",
    "TooLate",
    "Tool",
    "Transcript",
    "Unauthorized",
    "Unsent",
    "ValueRefused",
    "View",
    "Vote",
    "WaitingHandoff",
    "threaded",
    "tool",
]
