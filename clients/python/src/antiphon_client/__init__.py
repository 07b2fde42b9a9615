"""asyncio client of Antiphon sessions: resume from any cursor, send with receipts."""

from .client import Client
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
    NotAllowed,
    NotFound,
    QueueFull,
    TooLate,
    Unauthorized,
)
from .fold import Fold
from .protocol import CaughtUp, Entry, Gap, Reset, SessionEvent, Snapshot
from .receipts import Receipt
from .session import EventStream, HistoryPage, Session
from .settings import Settings
from .state import Input, InputApplied, Lane, Outcome, Run, State
from .tokens import TokenProvider
from .transcript import Message, Transcript

__all__ = [
    "AntiphonError",
    "CaughtUp",
    "ChainBroken",
    "Client",
    "ClientClosed",
    "CommandQueueFull",
    "CommandRefused",
    "ConnectFailed",
    "ConnectionClosed",
    "ContentTooLarge",
    "CursorInvalid",
    "Entry",
    "EventStream",
    "Fold",
    "FrameTooLarge",
    "Gap",
    "HistoryPage",
    "Input",
    "InputApplied",
    "InputNotApplied",
    "Lane",
    "Message",
    "NotAllowed",
    "NotFound",
    "Outcome",
    "QueueFull",
    "Receipt",
    "Reset",
    "Run",
    "Session",
    "SessionEvent",
    "Settings",
    "Snapshot",
    "State",
    "TokenProvider",
    "TooLate",
    "Transcript",
    "Unauthorized",
]
