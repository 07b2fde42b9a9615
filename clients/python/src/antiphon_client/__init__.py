"""asyncio client of Antiphon sessions: resume from any cursor, send with receipts."""

from .buffer import EventStream
from .changes import InputApplied, Outcome
from .client import Client
from .config import Config, RoleLimits
from .errors import (
    AntiphonError,
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
    SessionClosed,
    SessionFull,
    TooLate,
    Unauthorized,
    ValueRefused,
)
from .fold import Fold
from .listing import SessionInfo, WaitingHandoff
from .model import Approval, Call, Claim, Handoff, Input, Lane, Run, Vote
from .presence import Device, Participant, Presence
from .protocol import CaughtUp, Entry, Gap, Reset, SessionEvent, Snapshot
from .receipts import Receipt
from .session import Session
from .settings import Settings
from .state import State
from .steering import Created, HistoryPage, Response
from .tokens import TokenProvider
from .tools import Execution, Tool
from .transcript import Message, Transcript

__all__ = [
    "AntiphonError",
    "Approval",
    "Call",
    "CaughtUp",
    "ChainBroken",
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
    "Session",
    "SessionClosed",
    "SessionEvent",
    "SessionFull",
    "SessionInfo",
    "Settings",
    "Snapshot",
    "State",
    "TokenProvider",
    "TooLate",
    "Tool",
    "Transcript",
    "Unauthorized",
    "ValueRefused",
    "Vote",
    "WaitingHandoff",
]
