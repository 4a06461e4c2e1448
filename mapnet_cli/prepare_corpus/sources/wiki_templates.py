"""Text of the MediaWiki templates that are part of a sentence; all other templates are left out."""

import re
from calendar import month_name
from collections.abc import Callable

Args = dict[str, str]
"""Arguments of a template by name; unnamed ones are "1", "2", ..."""
Renderer = Callable[[Args], str]


def template_text(name: str, args: Args) -> str:
    """Returns the text of a template in running text, or "" if it is left out; `name` is as in `{{name|...}}`."""
    function, colon, value = name.strip().partition(":")
    if colon and function.lower() == "template":
        function, colon, value = value.partition(":")
    name = " ".join(function.lower().replace("_", " ").split())
    if colon:  # {{formatnum:1000}}
        args = {"1": value.strip()} | args
    if _QUOTATION.fullmatch(name):
        return name.replace(" ", "").replace("-", "")
    renderer = _RENDERERS.get(name) or next((show for family, show in _FAMILIES if family.match(name)), None)
    return renderer(args) if renderer else ""


def _listed(args: Args) -> list[str]:
    return [value for name, value in args.items() if name.isdecimal() and value]


def _argument(number: int) -> Renderer:
    return lambda args: args.get(str(number), "")


def _around(before: str, after: str = "") -> Renderer:
    return lambda args: f"{before}{args.get('1', '')}{after}"


def _always(text: str) -> Renderer:
    return lambda args: text


def _last(args: Args) -> str:
    """{{lang|fr|chat}}, {{transl|ar|DIN|kitāb}}: codes first, the text last."""
    return _listed(args)[-1] if "2" in args else ""


def _block(args: Args) -> str:
    return f"\n{args.get('1') or args.get('text') or args.get('quote', '')}\n"


def _converted(args: Args) -> str:
    """{{convert|5|km|mi}}: "5 km"; {{convert|5|to|7|km}}: "5 to 7 km"; {{convert|3|ft|4|in}}: "3 ft 4 in"."""
    listed = _listed(args)
    unit = 1
    while unit + 2 < len(listed) and listed[unit] in _BETWEEN:
        unit += 2
    two = unit == 1 and len(listed) > 3 and listed[2].isdecimal() and listed[3].isalpha()
    return " ".join(listed[: 4 if two else unit + 1])


_BETWEEN = {"-", "–", "to", "and", "by", "x", "×", "or", "to(-)", "and(-)", "+/-", "±"}


def _fraction(args: Args) -> str:
    """{{frac|3}}: "1/3"; {{frac|3|4}}: "3/4"; {{frac|1|3|4}}: "1 3/4"."""
    *whole, top, bottom = ["1", *_listed(args)] if len(_listed(args)) == 1 else ["", *_listed(args)][-3:]
    return f"{' '.join(whole)} {top}/{bottom}".strip()


def _value(args: Args) -> str:
    """{{val|6.24|e=18|u=V}}: "6.24×10^18 V"."""
    power = f"×10^{args['e']}" if args.get("e") else ""
    return f"{'±'.join(_listed(args)[:2])}{power} {args.get('u') or args.get('ul', '')}".strip()


def _as_of(args: Args) -> str:
    """{{as of|2014|7|lc=y}}: "as of July 2014"."""
    year, month, day = [*_listed(args), "", "", ""][:3]
    if month.isdecimal() and 1 <= int(month) <= 12:
        month = month_name[int(month)]
    date = " ".join(part for part in (day, month, year) if part)
    return args.get("alt") or f"{'as of' if args.get('lc') or args.get('since') else 'As of'} {date}"


def _coordinates(args: Args) -> str:
    """{{coord|13|19|N|169|9|W}}: "13 19 N 169 9 W"; the coordinates of the page title are left out."""
    numbers = [part for part in _listed(args) if ":" not in part]
    return " ".join(numbers) if "inline" in args.get("display", "inline") else ""


def _formula(args: Args) -> str:
    """{{chem|SO|4|2-}}: "SO4^2-"."""
    return "".join(f"^{part}" if _CHARGE.fullmatch(part) else part for part in _listed(args))


_CHARGE = re.compile(r"\d+[-–−+]")


def _japanese(args: Args) -> str:
    """{{nihongo|English|kanji|romaji}}: the English word, else the romaji, else the kanji."""
    return args.get("1") or args.get("3") or args.get("2", "")


_QUOTATION = re.compile(r"[-'\" ]*['\"][-'\" ]*s?(?<!^\")")
"""{{'s}}, {{' "}}: templates for spaced quotation marks, but not {{"|a quotation}}."""
_RENDERERS: dict[str, Renderer] = {
    **dict.fromkeys(["convert", "cvt"], _converted),
    **dict.fromkeys(
        ["nowrap", "nobr", "small", "smaller", "big", "large", "larger", "nobold", "noitalic"], _argument(1)
    ),
    **dict.fromkeys(
        ["sc", "sc2", "smallcaps", "small caps", "smcaps", "em", "strong", "abbr", "tooltip"], _argument(1)
    ),
    **dict.fromkeys(["math", "mvar", "var", "angbr", "vanchor", "visible anchor", "sic", "nq", "ipa"], _argument(1)),
    **dict.fromkeys(["railgauge", "track gauge", "formatnum", "format price", "flag", "nihongo2"], _argument(1)),
    **dict.fromkeys(["lang", "rtl-lang", "transl", "transliteration", "script"], _last),
    **dict.fromkeys(["quote", "blockquote", "cquote", "quotation", "quote box"], _block),
    **dict.fromkeys(["ndash", "snd", "spaced ndash", "–"], _always(" – ")),
    **dict.fromkeys(["mdash", "mdashb", "em dash", "—"], _always("—")),
    **dict.fromkeys(["nbsp", "spaces", "space", "thinsp", "thin space", "hair space"], _always(" ")),
    **dict.fromkeys(["circa", "c.", "ca."], _around("c. ")),
    **dict.fromkeys(["frac", "sfrac", "fraction"], _fraction),
    **dict.fromkeys(["chem", "chem2", "ce"], _formula),
    **dict.fromkeys(["nihongo", "nihongo3"], _japanese),
    **{ship.lower(): _around(f"{ship} ") for ship in ("HMAS", "HMCS", "HMS", "MV", "RMS", "SS", "USCGC", "USS")},
    '"': _around('"', '"'),
    "us$": _around("US$"),
    "us patent": _around("U.S. Patent "),
    **dict.fromkeys(["ship", "bibleref", "oldstyledate"], lambda args: " ".join(_listed(args)[:2])),
    "linktext": lambda args: "".join(_listed(args)),
    "eqm": _always("⇌"),
    "e": _around("×10^"),
    "val": _value,
    "coord": _coordinates,
    "as of": _as_of,
}
_FAMILIES: tuple[tuple[re.Pattern[str], Renderer], ...] = (
    (re.compile(r"lang[- ]|script/"), _argument(1)),
    (re.compile(r"ipa-|ipa?b?link"), _around("[", "]")),
    (re.compile(r"ipaslink"), _around("/", "/")),
)
"""Templates with one variant per language, by the beginning of their name: {{lang-ru|...}}, {{IPA-fr|...}}.

{{IPAc-en|...}} and {{respell|...}} are left out: in first sentences, they would lower the share of ASCII letters."""
