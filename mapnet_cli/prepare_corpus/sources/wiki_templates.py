"""Text of the MediaWiki templates that are part of a sentence; all other templates are left out.

Simple ones are listed in wiki_templates.toml. Left out, too, is what a template computes from today's date or a
conversion: {{convert|5|km|mi}} is "5 kilometres", not "5 kilometres (3.1 mi)". So are {{IPAc-en|...}} and
{{respell|...}}: in first sentences, they would lower the share of ASCII letters.
"""

import re
import tomllib
from calendar import month_name
from collections.abc import Callable
from importlib.resources import files
from typing import Any

Args = dict[str, str]
"""Arguments of a template by name; unnamed ones are "1", "2", ...; the template's name is "", and "0" in lower case."""
Renderer = Callable[[Args], str]

_DATA: dict[str, Any] = tomllib.loads((files(__package__) / "wiki_templates.toml").read_text("utf-8"))


def template_text(inside: str) -> str:
    """Returns the wikitext that {{inside}} stands for in running text, or "" if it is left out."""
    name, *values = inside.split("|")
    function, colon, value = name.strip().partition(":")
    if colon and function.lower() == "template":
        function, colon, value = value.partition(":")
    name = " ".join(function.lower().replace("_", " ").split())
    if _QUOTATION.fullmatch(name):
        return name.replace(" ", "").replace("-", "")
    renderer = _RENDERERS.get(name) or next((show for family, show in _FAMILIES if family.match(name)), None)
    if renderer is None:
        return ""
    args: Args = {"0": name, "": function.strip()}
    position = 0
    for given in [value, *values] if colon else values:  # {{formatnum:1000}}
        key, named, rest = given.partition("=")
        position += not named
        args[key.strip() if named else str(position)] = (rest if named else given).strip()
    return renderer(args)


def _listed(args: Args) -> list[str]:
    return [value for name, value in args.items() if name.isdecimal() and name != "0" and value]


def _first(args: Args) -> str:
    return args.get("1", "")


def _joined(between: str, before: str = "") -> Renderer:
    return lambda args: before + between.join(_listed(args))


def _shown(text: str) -> Renderer:
    """Returns a renderer of the text, in which {1} is the first argument."""
    return lambda args: text.format(*(args.get(place, "") for place in "0123"))


def _number(value: str) -> str:
    """Returns the number with separators: "1,234,567.5"."""
    digits, point, decimals = value.partition(".")
    return f"{int(digits):,}{point}{decimals}" if digits.isdecimal() and 4 <= len(digits) < 30 else value


_RANGES = {"-": "–", "–": "–", "to(-)": "–", "x": " by ", "×": " by ", "and(-)": " and ", "±": " ± "}
_RANGES |= {word: f" {word} " for word in ("to", "and", "or", "by", "+/-")}
_COUNTS = {"e3": "thousand", "e6": "million", "e9": "billion"}
_PARTS = {"ft": "in", "lb": "oz", "st": "lb"}


def _converted(args: Args) -> str:
    """{{convert|5|to|7|e6km2}}: "5 to 7 million square kilometres"; {{convert|3|ft|4|in|adj=on}}: "3-foot-4-inch"."""
    listed = [*_listed(args), ""]
    value, unit = _number(listed[0]), 1
    while unit + 2 < len(listed) and listed[unit] in _RANGES:
        value += _RANGES[listed[unit]] + _number(listed[unit + 1])
        unit += 2
    short = args.get("abbr", "on" if args["0"] == "cvt" else "") in ("on", "in", "values", "~")
    adjective = args.get("adj", args.get("sing"))
    hyphen = "-" if adjective in ("on", "mid") and not short else " "
    shown = [_quantity(value, listed[unit] if unit < len(listed) else "", short, hyphen)]
    if unit == 1 and len(listed) > 4 and _PARTS.get(listed[1]) == listed[3]:
        shown.append(_quantity(listed[2], listed[3], short, hyphen))
    text = hyphen.join(shown).strip() + ("".join(listed[-2:-1]) if adjective == "mid" else "")
    return text.replace("metre", "meter").replace("litre", "liter") if args.get("sp") == "us" else text


def _quantity(value: str, code: str, short: bool, hyphen: str) -> str:
    count = _COUNTS.get(code[:2])
    unit = code[2:] if count else code
    singular, plural, symbol = [*_DATA["units"].get(unit, [unit, unit]), "", ""][:3]
    if short or unit not in _DATA["units"]:
        return f"{value}{f'×10<sup>{code[1]}</sup>' if count else ''} {symbol or unit}"
    name = singular if hyphen == "-" or value == "1" else plural or f"{singular}s"
    return " ".join(part for part in (value, count, name) if part).replace(" ", hyphen)


def _fraction(args: Args) -> str:
    """{{frac|3}}: "1/3"; {{frac|3|4}}: "3/4"; {{frac|1|3|4}}: "1 3/4"."""
    *whole, top, bottom = ["", "1", *_listed(args)][-3:] if len(_listed(args)) < 2 else ["", *_listed(args)][-3:]
    return f"{' '.join(whole)} {top}/{bottom}".strip()


def _value(args: Args) -> str:
    """{{val|6.24|e=18|u=V}}: "6.24×10^18 V"; {{val|5|-|7|u=km}}: "5–7 km"; {{val|5|(2)}}: "5(2)"."""
    numbers = [_RANGES.get(value) or _number(value) for value in _listed(args)]
    ranged = len(numbers) > 2 and _listed(args)[1] in _RANGES
    value = "".join(numbers[:3]) if ranged else ("" if "(" in "".join(numbers[1:]) else "±").join(numbers[:2])
    power = f"×10<sup>{args['e']}</sup>" if args.get("e") else ""
    unit, per = (args.get(name) or args.get(f"{name}l", "") for name in ("u", "up"))
    return f"{args.get('p', '')}{value}{power}{args.get('s', '')} {unit}{per and f'/{per}'}".strip()


def _ordinal(args: Args) -> str:
    """{{ordinal|22}}: "22nd"."""
    number = _first(args)
    return number + ("th" if number[-2:-1] == "1" else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1:], "th"))


def _dated(args: Args) -> tuple[str, str, str]:
    """Returns the year, the name of the month and the day; "" if they are missing."""
    year, month, day = [*_listed(args), "", "", ""][:3]
    named = month.isdecimal() and 1 <= int(month) <= 12
    return year, month_name[int(month)] if named else month, day.lstrip("0") if day.isdecimal() else ""


def _as_of(args: Args) -> str:
    """{{as of|2014|7|lc=y}}: "as of July 2014"."""
    date = " ".join(filter(None, reversed(_dated(args))))
    return args.get("alt") or f"{'as of' if args.get('lc') or args.get('since') else 'As of'} {date}"


def _date(args: Args) -> str:
    """{{start date|2010|5|2}}: "May 2, 2010"; with df=y "2 May 2010"."""
    year, month, day = _dated(args)
    return f"{month} {day}, {year}" if day and not args.get("df") else " ".join(filter(None, (day, month, year)))


def _coordinates(args: Args) -> str:
    """{{coord|13|19|N|169|9|W}}: "13°19′N 169°9′W"; the coordinates of the page title are left out."""
    shown, part = "", 0
    for value in _listed(args):
        if value in ("N", "S", "E", "W"):
            shown, part = f"{shown}{value} ", 0
        elif ":" not in value and part < 3:
            shown, part = f"{shown}{value}{'°′″'[part]}", part + 1
    return shown.strip() if "inline" in args.get("display", "inline") and shown.endswith(" ") else ""


def _language(args: Args) -> str:
    """{{langx|ru|Москва|Moskva|Moscow}}: "Russian: Москва, romanized: Moskva, lit. 'Moscow'"; also {{lang-ru|...}}."""
    first = args["0"] == "langx"
    code = _first(args) if first else args["0"][5:]
    text, roman, meaning = (args.get(str(first + place), "") for place in (1, 2, 3))
    text, roman = args.get("text") or text, args.get("translit") or roman
    meaning = args.get("lit") or args.get("translation") or meaning
    names = _DATA["languages"]
    label = args.get("label") or names.get(code.lower()) or names.get(code.partition("-")[0], "none")
    shown = text if label == "none" else f"{label}: {text}"
    return shown + (roman and f", romanized: {roman}") + (meaning and f", lit. '{meaning}'")


def _labelled(labels: dict[str, str]) -> Renderer:
    """{{zh|c=中国|p=Zhōngguó|l=Middle Kingdom}}: "Chinese: 中国; pinyin: Zhōngguó; lit. 'Middle Kingdom'"."""
    return lambda args: "; ".join(label.format(args[key]) for key, label in labels.items() if args.get(key))


def _japanese(args: Args) -> str:
    """{{nihongo|art|術|jutsu}}: "art (術, jutsu)"; {{nihongo3|art|術|jutsu}}: "jutsu (術, art)"."""
    english, kanji, roman, extra = (args.get(place, "") for place in "1234")
    order = [roman, kanji, english] if args["0"] == "nihongo3" or not english else [english, kanji, roman]
    shown, *rest = [*filter(None, [*order, extra or args.get("extra")])] or [""]
    return f"{shown} ({', '.join(rest)})" if rest else shown


def _ship(args: Args) -> str:
    """{{HMS|Ajax|22}}, {{ship|HMS|Ajax|22}}: "HMS Ajax"; a last argument of 2 or 6 leaves out the prefix."""
    prefix = _first(args) if args["0"] == "ship" else args[""].upper() if args[""].islower() else args[""]
    name, shown = (args.get(str(place + (args["0"] == "ship")), "") for place in (1, 3))
    return name if shown in ("2", "6") else f"{prefix} {name}".strip()


def _sic(args: Args) -> str:
    """{{sic|irrega|rdless}}: "irregardless [sic]"."""
    text = "".join(part for part in _listed(args) if part != "?")
    return text if args.get("hide") else f"{text} [sic]".strip()


_QUOTATION = re.compile(r"[-'\" ]*['\"][-'\" ]*s?(?<!^\")")
"""{{'s}}, {{' "}}: templates for spaced quotation marks, but not {{"|a quotation}}."""
_NOTES = {"sharp": "♯", "#": "♯", "flat": "♭", "b": "♭", "natural": "♮"}
_RULES: dict[str, Renderer] = {
    _DATA["second"]: lambda args: args.get("2") or _first(args),
    _DATA["last"]: lambda args: _listed(args)[-1] if args.get("2") else "",  # {{transl|ar|DIN|kitāb}}
    _DATA["block"]: lambda args: f"\n{args.get('text') or args.get('quote') or _first(args)}\n",
    _DATA["ship"]: _ship,
    _DATA["date"]: _date,
    **{names: _shown(text) for names, text in _DATA["shown"].items()},
    "zh, lang-zh, zh-full": _labelled(_DATA["labelled"]["zh"]),
    "korean": _labelled(_DATA["labelled"]["korean"]),
    "convert, cvt": _converted,
    "frac, sfrac, fraction": _fraction,
    "formatnum, num, nts": lambda args: _number(_first(args)),
    "ordinal, ord": _ordinal,
    "val": _value,
    "coord": _coordinates,
    "height": lambda args: " ".join(f"{args[unit]} {unit}" for unit in ("m", "cm", "ft", "in") if args.get(unit)),
    "as of": _as_of,
    "circa, c., ca.": lambda args: " – ".join(f"c. {date}" for date in _listed(args) or [""]),
    "reign, r.": _joined("–", "r. "),
    "floruit, fl.": _joined("–", "fl. "),
    "chem, chem2, ce": lambda args: "".join(re.sub(r"^(?=\d+[-–−+]$)", "^", part) for part in _listed(args)),  # SO4^2-
    "music": lambda args: _NOTES.get(_first(args), ""),
    "langx": _language,
    "nihongo, nihongo3": _japanese,
    "ipa": lambda args: f"[{args['2']}]" if args.get("2") else _first(args),
    "ill, interlanguage link, interlanguage link multi, ill-wd": lambda args: args.get("lt") or _first(args),
    "linktext, gaps": _joined(""),
    "sic": _sic,
    "lc": lambda args: _first(args).lower(),
    "uc": lambda args: _first(args).upper(),
    "lcfirst": lambda args: _first(args)[:1].lower() + _first(args)[1:],
    "ucfirst": lambda args: _first(args)[:1].upper() + _first(args)[1:],
}
_RENDERERS = {name.strip(): rule for names, rule in _RULES.items() for name in names.split(",")}
_FAMILIES: tuple[tuple[re.Pattern[str], Renderer], ...] = (
    (re.compile(r"lang-"), _language),
    (re.compile(r"lang |script/"), _first),
    (re.compile(r"ipa-|ipa?[ab]?link"), lambda args: f"[{_first(args)}]"),
    (re.compile(r"ipaslink"), lambda args: f"/{_first(args)}/"),
)
"""Templates with one variant per language, by the beginning of their name: {{lang-ru|...}}, {{IPA-fr|...}}."""
