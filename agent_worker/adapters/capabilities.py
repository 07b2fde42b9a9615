"""What an adapter can do. The tests of adapters hold each of them to what it says here, in both directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Steering = Literal["inject", "enqueue"]
OnHold = Literal["ended", "waits"]
OnLoss = Literal["goes_on", "asks_again", "by_author"]
ToolErrors = Literal["told", "end_the_run"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What of a framework or a protocol arrives in a session.

    - `steering`: what comes in mid-run is given to the model (`inject`) or becomes the next run (`enqueue`).
    - `on_hold`: while nobody watches, the model's stream is ended and asked to go on later (`ended`), or nothing is taken
      from it, so that it stands still (`waits`).
    - `on_loss`: what becomes of a run whose worker has died: the model gets what was said and done, and goes on
      (`goes_on`); it is asked again, and the answer begins anew (`asks_again`); the author's code sees to it
      (`by_author`).
    - `tool_errors`: what a tool raises is told to the model, by its kind (`told`), or ends the run, as in the framework
      (`end_the_run`).
    - `tools`, `client_tools`, `approvals`, `reasoning`, `usage`, `images`: whether there are any.
    """

    steering: Steering
    on_hold: OnHold
    on_loss: OnLoss
    tool_errors: ToolErrors = "told"
    tools: bool = True
    client_tools: bool = True
    approvals: bool = True
    reasoning: bool = True
    usage: bool = True
    images: bool = True
