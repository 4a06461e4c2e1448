"""Coverage-guided fuzzing of the readers by atheris, which must be installed; findings are those of the tests.

    python -m tests.fuzz.guided test_tables -runs=100000 -max_len=4096

The first argument names a test of test_rows.py or test_readers.py; the others are libFuzzer's.
"""

import sys

import atheris

with atheris.instrument_imports(include=["mapnet_cli"], enable_loader_override=False):
    from tests.fuzz import test_readers, test_rows


def main() -> None:
    name = sys.argv.pop(1)
    test = getattr(test_rows, name, None) or getattr(test_readers, name)
    atheris.Setup(sys.argv, test.hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
