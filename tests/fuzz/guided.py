"""Coverage-guided fuzzing of the readers by atheris, which must be installed; findings are those of the tests.

    python -m tests.fuzz.guided test_tables 100000

The first argument names a test of test_rows.py or test_readers.py, the second is the number of examples; inputs that
are too short to make an example aren't counted. Others are libFuzzer's options.
"""

import os
import sys

import atheris

with atheris.instrument_imports(include=["mapnet_cli"], enable_loader_override=False):
    from tests.fuzz import test_readers, test_rows


def main() -> None:
    name, given, *options = sys.argv[1:]
    total = int(given)
    test = getattr(test_rows, name, None) or getattr(test_readers, name)
    examples = 0

    def one_input(buffer: bytes) -> None:
        nonlocal examples
        examples += test.hypothesis.fuzz_one_input(buffer) is not None
        if examples == total:
            print(f"{examples:,} examples of {name}, no failure", flush=True)
            test_readers.TEMPORARY.cleanup()
            test_rows.FOLDER.cleanup()
            os._exit(0)  # libFuzzer takes an exception for a finding

    # Most examples need over a hundred bytes: libFuzzer would begin with a few.
    atheris.Setup([sys.argv[0], "-len_control=0", "-max_len=4096", *options], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
