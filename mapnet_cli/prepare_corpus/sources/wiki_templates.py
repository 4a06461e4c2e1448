"""What the templates of MediaWiki that belong to a sentence show; only these are not left out."""

import re
from calendar import month_name
from collections.abc import Callable

Given = dict[str, str]
"""What a template is given, by name; "1", "2" ... what has none."""
Show = Callable[[Given], str]


def shown(name: str, given: Given) -> str:
    """Returns what a reader sees of a template in running text, "" if it is left out; its name as in `{{name|...}}`."""
    function, colon, value = name.strip().partition(":")
    if colon and function.lower() == "template":
        function, colon, value = value.partition(":")
    name = " ".join(function.lower().replace("_", " ").split())
    if colon:  # {{formatnum:1000}}
        given = {"1": value.strip()} | given
    if _QUOTATION.fullmatch(name):
        return name.replace(" ", "").replace("-", "")
    show = _SHOWN.get(name) or next((show for family, show in _FAMILIES if family.match(name)), None)
    return show(given) if show else ""


def _listed(given: Given) -> list[str]:
    return [value for name, value in given.items() if name.isdecimal() and value]


def _argument(number: int) -> Show:
    return lambda given: given.get(str(number), "")


def _around(before: str, after: str = "") -> Show:
    return lambda given: f"{before}{given.get('1', '')}{after}"


def _always(text: str) -> Show:
    return lambda given: text


def _last(given: Given) -> str:
    """{{lang|fr|chat}}, {{transl|ar|DIN|kitāb}}: the code first, the text last."""
    return _listed(given)[-1] if "2" in given else ""


def _block(given: Given) -> str:
    return f"\n{given.get('1') or given.get('text') or given.get('quote', '')}\n"


def _converted(given: Given) -> str:
    """{{convert|5|km|mi}}: "5 km"; {{convert|5|to|7|km}}: "5 to 7 km"; {{convert|3|ft|4|in}}: "3 ft 4 in"."""
    listed = _listed(given)
    unit = 1
    while unit + 2 < len(listed) and listed[unit] in _BETWEEN:
        unit += 2
    two = unit == 1 and len(listed) > 3 and listed[2].isdecimal() and listed[3].isalpha()
    return " ".join(listed[: 4 if two else unit + 1])


_BETWEEN = {"-", "–", "to", "and", "by", "x", "×", "or", "to(-)", "and(-)", "+/-", "±"}


def _fraction(given: Given) -> str:
    """{{frac|3}}: "1/3"; {{frac|3|4}}: "3/4"; {{frac|1|3|4}}: "1 3/4"."""
    *whole, top, bottom = ["1", *_listed(given)] if len(_listed(given)) == 1 else ["", *_listed(given)][-3:]
    return f"{' '.join(whole)} {top}/{bottom}".strip()


def _value(given: Given) -> str:
    """{{val|6.24|e=18|u=V}}: "6.24×10^18 V"."""
    power = f"×10^{given['e']}" if given.get("e") else ""
    return f"{'±'.join(_listed(given)[:2])}{power} {given.get('u') or given.get('ul', '')}".strip()


def _as_of(given: Given) -> str:
    """{{as of|2014|7|lc=y}}: "as of July 2014"."""
    year, month, day = [*_listed(given), "", "", ""][:3]
    if month.isdecimal() and 1 <= int(month) <= 12:
        month = month_name[int(month)]
    date = " ".join(part for part in (day, month, year) if part)
    return given.get("alt") or f"{'as of' if given.get('lc') or given.get('since') else 'As of'} {date}"


def _coordinates(given: Given) -> str:
    """{{coord|13|19|N|169|9|W}}: "13 19 N 169 9 W"; those of the page's title are not shown."""
    numbers = [part for part in _listed(given) if ":" not in part]
    return " ".join(numbers) if "inline" in given.get("display", "inline") else ""


def _formula(given: Given) -> str:
    """{{chem|SO|4|2-}}: "SO4^2-"."""
    return "".join(f"^{part}" if _CHARGE.fullmatch(part) else part for part in _listed(given))


_CHARGE = re.compile(r"\d+[-–−+]")


def _japanese(given: Given) -> str:
    """{{nihongo|English|kanji|romaji}}: the English word, or the first that there is."""
    return given.get("1") or given.get("3") or given.get("2", "")


_QUOTATION = re.compile(r"[-'\" ]*['\"][-'\" ]*s?(?<!^\")")
"""{{'s}}, {{' "}}: templates that set quotation marks apart, but not {{"|a quotation}}."""
_SHOWN: dict[str, Show] = {
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
    **dict.fromkeys(["ship", "bibleref", "oldstyledate"], lambda given: " ".join(_listed(given)[:2])),
    "linktext": lambda given: "".join(_listed(given)),
    "eqm": _always("⇌"),
    "e": _around("×10^"),
    "val": _value,
    "coord": _coordinates,
    "as of": _as_of,
}
_FAMILIES: tuple[tuple[re.Pattern[str], Show], ...] = (
    (re.compile(r"lang[- ]|script/"), _argument(1)),
    (re.compile(r"ipa-|ipa?b?link"), _around("[", "]")),
    (re.compile(r"ipaslink"), _around("/", "/")),
)
"""Templates of many languages, by how their names begin: {{lang-ru|...}}, {{IPA-fr|...}}.

Not {{IPAc-en|...}} and {{respell|...}}: they stand in the brackets of first sentences, which would count as foreign."""
