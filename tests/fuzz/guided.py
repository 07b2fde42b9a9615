"""One target, led by coverage (Atheris, libFuzzer): `python -m tests.fuzz.guided TARGET [options of libFuzzer] CORPUS`."""

from __future__ import annotations

import sys
from random import Random

import atheris

with atheris.instrument_imports(include=["antiphon_client", "broker", "gateway", "jwt", "webhooks"]):
    from tests.fuzz.catalogue import tried
    from tests.fuzz.mutation import mutated
    from tests.fuzz.seeds import seeds


def main() -> None:
    name = sys.argv.pop(1)
    those = seeds()[name]

    def try_once(data: bytes) -> None:
        tried(name, data)

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        return mutated(data, Random(seed), those)[:size_max]

    atheris.Setup(sys.argv, try_once, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
