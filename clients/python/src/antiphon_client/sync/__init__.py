"""The client for scripts and notebooks: the same as the asyncio client, with calls that wait."""

from antiphon_client.deciding import Choice
from antiphon_client.signatures import tool
from antiphon_client.tools import ThreadExecution, Tool, threaded

from ._wrapped import Iteration
from .client import Client
from .receipts import Answer, Receipt, Submission
from .session import Session

__all__ = [
    "Answer",
    "Choice",
    "Client",
    "Iteration",
    "Receipt",
    "Session",
    "Submission",
    "ThreadExecution",
    "Tool",
    "threaded",
    "tool",
]
