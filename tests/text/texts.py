"""Test lines for the text pipeline: difficult artificial ones, and real text."""

import tarfile
from pathlib import Path

from hypothesis import strategies as st

_WORDS = r"""
the The of Smith x X i It it He said dont cannot Müller naïve Ωmega σας ΟΔΟΣ İstanbul ß ﬁ word well-known
Mr. Mrs. Dr. St. U.S. U.S.A. a.m. p.m. 5a.m. i.e. e.g. No. Nos. pp. vs. etc. Ph.D. Inc. Jan. A. b. o.O v.v w/o
don't it's 'tis 'Twas dogs' James' o'clock rock'n'roll 90's '90s n't 's ' '' '. .' ,' ', l'été 5'6 x'. "' '"
. .. ... .... ? ! ?! !? … 。 ？ ！ ‼ ; : , ,, - -- – — ― / \ | _ * # @ & % $ € £ ^ ~ ` `` < > = + ( ) [ ] { }
“ ” ‘ ’ „ ‚ « » ´ ´´ " :) :-) (-: ;D :D <3 (._.) ¯\(ツ)/¯ ). .) .( (. "). ." ?" !) .’ end." end.) (end.
1 1,000 1,000,000.5 3.14 10% % 1. 2) 1990s 5km 10kg. $5 US$5 ,5 5, ٣،٤ １，０ 1/2 ½ ² 5°C 50°F. H2O 1990-91
http://x.org/a?b=c www.example.com. me@host.co.uk @name #tag a/b and/or file.txt C++ AT&T x=y a_b _Title_.
DOTMULTI DOTDOTMULTI. MULTI THISISPROTECTED000 [MASK] [UNK] </s> ▁ a▁b
漢字 漢字。次 日本語です。 नमस्ते। 한국어 عربي؟ 𑀭𑀸𑀫𑁇 ब। 😀 🇩🇪
"""
PIECES = (
    *_WORDS.split(),
    *("e\u0301", "a\u0300\u0323", "\u0301", "z\u200bw", "so\u00adft", "\ufeff", "\u202e", "👩\u200d👩\u200d👧"),
    *("\x00", "\x07", "\x1f", "\x85", "\ue000", "\U0010ffff", "\u0378", "nº\u00a05", "5\u00a0000", "«\u00a0x\u00a0»"),
    *("\u00a0", "\u2003", "\u3000", "\u2028", "\t", "\r", "\x0b", "\x1c", "x\u00a0!"),
    *("long" * 40, "." * 70, "a-" * 50, "'" * 9, "x" * 300 + "."),
)
_GLUE = st.sampled_from([" ", " ", " ", " ", "", "", "  ", "\u00a0"])
_PIECE = st.sampled_from(PIECES) | st.text(max_size=5) | st.text("aB1.,'\"-!?( ", max_size=8)
lines = st.lists(st.tuples(_PIECE, _GLUE).map("".join), min_size=1, max_size=25).map("".join)
"""Strategy for lines as they may occur in a file: any characters except surrogates."""


def real_lines(shared_data: Path, files: int) -> list[str]:
    """Returns the lines of the first few Wikipedia files and books."""
    found: list[str] = []
    for name in ("wikipedia.tar.xz", "books.tar.xz"):
        with tarfile.open(shared_data / name, "r|xz") as archive:
            texts = (archive.extractfile(member) for member in archive if member.isfile())
            for _, handle in zip(range(files), texts, strict=False):
                assert handle is not None
                found += handle.read().decode("utf-8", "replace").splitlines()
    return found
