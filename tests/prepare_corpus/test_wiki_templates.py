"""The templates that show text within a sentence: what MediaWiki shows, one line per name of a template."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapnet_cli.prepare_corpus.sources.wiki_templates import _RENDERERS, template_text
from mapnet_cli.prepare_corpus.sources.wikitext import literal, prose
from tests.prepare_corpus.corpora import FUZZ

SHOWN = r"""
{{nowrap|10 years}} | 10 years
{{nobr|Part 2}} | Part 2
{{nobreak|Part 3}} | Part 3
{{small|note}} | note
{{smaller|note}} | note
{{big|A}} | A
{{bigger|B}} | B
{{large|C}} | C
{{larger|D}} | D
{{huge|E}} | E
{{nobold|plain}} | plain
{{noitalic|upright}} | upright
{{nocaps|x}} | x
{{em|must}} | must
{{strong|never}} | never
{{sc|ad}} | ad
{{sc1|bc}} | bc
{{sc2|ce}} | ce
{{smallcaps|Lord}} | Lord
{{small caps|God}} | God
{{smallcaps all|NATO}} | NATO
{{smcaps|x}} | x
{{aut|Smith}} | Smith
{{abbr|UK|United Kingdom}} | UK
{{abbrlink|MP|Member of Parliament}} | MP
{{tooltip|here|a hint}} | here
{{math|''n'' {{=}} 2}} | n = 2
{{mvar|x}} | x
{{var|size}} | size
{{code|ls -l}} | ls -l
{{mono|rm}} | rm
{{kbd|y}} | y
{{samp|done}} | done
{{key press|Ctrl}} | Ctrl
{{vanchor|Term}} | Term
{{visible anchor|Term}} | Term
{{not a typo|alot}} | alot
{{typo|teh}} | teh
{{proper name|Flouride}} | Flouride
{{chem name|poly(1-phenylethene)}} | poly(1-phenylethene)
{{as written|Publick}} | Publick
{{nq|word}} | word
{{unicode|Ǝ}} | Ǝ
{{hebrew|שלום}} | שלום
{{nastaliq|اردو}} | اردو
{{iast|saṃsāra}} | saṃsāra
{{pie|*wódr̥}} | *wódr̥
{{track gauge|1435 mm}} | 1435 mm
{{railgauge|3 ft 6 in}} | 3 ft 6 in
{{format price|100}} | 100
{{flag|France}} | France
{{flagcountry|Spain}} | Spain
{{flagu|Italy}} | Italy
{{nihongo2|東京}} | 東京
{{crossreference|see below}} | see below
{{crossref|see above}} | see above
{{xref|see § 2}} | see § 2
{{underline|a}} | a
{{overline|b}} | b
{{strikethrough|c}} | c
{{highlight|d}} | d
{{url|example.org}} | example.org
{{delink|name}} | name
H{{sub|2}}O | H2O
{{stn|Paddington}} | Paddington
{{rws|London Bridge}} | London Bridge
{{stnlnk|York}} | York
{{by|1998}} | 1998
{{mlby|1999}} | 1999
{{mlb year|2000}} | 2000
{{baseball year|2001}} | 2001
{{nfly|2002}} | 2002
{{nfl year|2003}} | 2003
{{avyear|1944}} | 1944
{{annotated link|Logic}} | Logic
{{red|warning}} | warning
{{center|Title}} | Title
{{green|a}} {{blue|b}} {{gray|c}} {{grey|d}} | a b c d
{{no wrap|10 m}} {{midsize|a}} {{strikeout|b}} {{bold|c}} {{keypress|F1}} | 10 m a b c F1
{{noredirect|A}} {{no redirect|B}} {{polytonic|λόγος}} {{script Hebrew|שם}} | A B λόγος שם
{{color|red|stop}} | stop
{{colour|blue|go}} | go
{{font color|green|slow}} | slow
{{fontcolor|green|fast}} | fast
{{background color|gray|x}} | x
{{hover title|a hint|text}} | text
{{resize|120%|large}} | large
{{resize|small}} | small
{{sort|002|second}} | second
{{lang|fr|chat}} | chat
{{rtl-lang|ar|سلام}} | سلام
{{transl|ar|DIN|kitāb}} | kitāb
{{transliteration|ru|Moskva}} | Moskva
{{script|Cyrl|Москва}} | Москва
{{script/Hebrew|שם}} | שם
{{wikt-lang|la|aqua}} | aqua
{{bo-textonly|lang=t|བོད}} |
{{lang-fr|chat}} | French: chat
{{lang_fr|chat}} | chat
{{langx|fr|chat}} | French: chat
{{langx|ru|Москва|Moskva|Moscow}} | Russian: Москва, romanized: Moskva, lit. 'Moscow'
{{langx|el|Αθήνα|lit=Athens|label=none}} | Αθήνα, lit. 'Athens'
{{langx|sr-Cyrl|Београд|translit=Beograd}} | Serbian Cyrillic: Београд, romanized: Beograd
{{lang-sr-cyr|Нови Сад}} | Serbian Cyrillic: Нови Сад
{{lang-grc-gre|λόγος|logos}} | Greek: λόγος, romanized: logos
{{translit|ru|Moskva}} | Moskva
{{langx|xyz|word}} | word
{{IPA|/a/}} | /a/
{{IPA|fr|a}} | [a]
{{IPA-de|ʃat}} | [ʃat]
{{IPAlink|ʃ}} {{IPAblink|b}} {{IPAslink|p}} | [ʃ] [b] /p/
{{zh|s=国|t=國|p=guó|l=country}} | simplified Chinese: 国; traditional Chinese: 國; pinyin: guó; lit. 'country'
{{lang-zh|c=中|w=Chung|j=zung}} | Chinese: 中; Wade–Giles: Chung; Jyutping: zung
{{zh-full|c=文}} | Chinese: 文
{{korean|hangul=김치|rr=gimchi}} | Korean: 김치; RR: gimchi
{{nihongo|Tokyo Tower|東京タワー|Tōkyō tawā}} | Tokyo Tower (東京タワー, Tōkyō tawā)
{{nihongo||東京タワー|Tōkyō tawā}} | Tōkyō tawā (東京タワー)
{{nihongo3|art|術|jutsu}} | jutsu (術, art)
{{linktext|漢|字}} | 漢字
{{lit|warehouse keeper}} | lit. 'warehouse keeper'
{{literal translation|bear}} | lit. 'bear'
{{gloss|house}} | 'house'
{{angbr|th}} | ⟨th⟩
{{angle bracket|sh}} | ⟨sh⟩
{{grapheme|ch}} | ⟨ch⟩
{{ill|Hooglede town hall|nl|Stadhuis van Hooglede}} | Hooglede town hall
{{ill|Trève|fr|lt=trèves}} | trèves
{{interlanguage link|A. Person|de}} | A. Person
{{interlanguage link multi|B. Person|de|es}} | B. Person
{{ill-wd|C. Person|Q1}} | C. Person
{{section link|Logic|History}} | Logic § History
{{slink|Logic|Early life}} | Logic § Early life
{{convert|5|km|mi}} | 5 kilometres
{{convert|1|mi}} | 1 mile
{{convert|5|to|7|km}} | 5 to 7 kilometres
{{convert|5|-|7|m|ft|abbr=on}} | 5–7 m
{{convert|3|ft|4|in}} | 3 feet 4 inches
{{convert|6|ft|2|in|cm|adj=on}} | 6-foot-2-inch
{{convert|5|by|6|by|7|m|ft}} | 5 by 6 by 7 metres
{{convert|10|x|12|ft}} | 10 by 12 feet
{{convert|25000|sqmi}} | 25,000 square miles
{{convert|2.5|e6acre|e6ha}} | 2.5 million acres
{{convert|2.5|e6acre|abbr=on}} | 2.5×10^6 acres
{{convert|12|mi|km|adj=on}} | 12-mile
a {{convert|1000|ft|m|sing=on}}-wide, a {{convert|5|mi|km|adj=mid|-wide}} | a 1,000-foot-wide, a 5-mile-wide
{{convert|9|km|0|sp=us}} | 9 kilometers
{{convert|20|C|F}} | 20 °C
{{convert|70|mph|km/h}} | 70 miles per hour
{{convert|40|hp|kW}} | 40 horsepower
{{convert|3|flubs}} | 3 flubs
{{convert|10|e6USgal}} | 10 million US gallons
{{convert|100|PJ}} | 100 petajoules
{{convert|20|cuyd|m3|abbr=on}} | 20 cu yd
{{convert|350|cuin|L|adj=on}} | 350-cubic-inch
{{convert|1|kPa}} {{convert|2|GHz}} {{convert|4|inHg}} | 1 kilopascal 2 gigahertz 4 inches of mercury
{{convert|2000|m3/s}} | 2,000 cubic metres per second
{{convert|40|PD/km2}} | 40 inhabitants per square kilometre
{{cvt|5|sqmi}} | 5 sq mi
{{cvt|600|hp}} | 600 hp
{{height|ft=5|in=11}} | 5 ft 11 in
{{val|6.24|e=18|u=V}} | 6.24×10^18 V
{{val|1234.5|0.2|u=m|up=s}} | 1,234.5±0.2 m/s
{{val|5|-|7|ul=km}} | 5–7 km
{{val|12|(3)|p=~|s=%}} | ~12(3)%
{{frac|3}} {{frac|3|4}} {{frac|1|3|4}} | 1/3 3/4 1 3/4
{{sfrac|1|4}} | 1/4
{{fraction|2|3}} | 2/3
{{1/2}} {{1/4}} {{3/4}} | 1/2 1/4 3/4
{{formatnum:1234567}} | 1,234,567
{{num|5000.25}} | 5,000.25
{{nts|3000}} | 3,000
{{gaps|12|345}} | 12345
{{ordinal|1}} {{ordinal|12}} {{ordinal|22}} {{ordinal|103}} | 1st 12th 22nd 103rd
{{ord|4}} | 4th
5{{e|24}} | 5×10^24
10{{sup|3}} x{{sup|2}} | 10^3 x2
10{{times}}10 {{±|3}} 5{{degree}} {{CO2}} {{H2O}} | 10×10 ±3 5° CO2 H2O
{{10^|5}} 3{{x10^|6}} | 10^5 3×10^6
{{radic|2}} | √2
{{sqrt|3}} | √3
{{chem|C|''n''|H|2''n''}} | CnH2n
{{chem|SO|4|2-}} | SO4^2-
{{chem2|H2O}} | H2O
{{ce|NaCl}} | NaCl
{{tmath|x^2}} | formula
{{music|sharp}} {{music|flat}} | ♯ ♭
{{coord|13|19|N|169|9|W|type:x}} | 13°19′N 169°9′W
{{coord|43|15|30.5|N|2|55|20|W|display=inline,title}} | 43°15′30.5″N 2°55′20″W
{{coord|1|2|N|3|4|E|display=title}} |
{{as of|2010}} | As of 2010
{{as of|2014|7|lc=y}} | as of July 2014
{{as of|2015|3|1|alt=at present}} | at present
{{start date|2010|5|2}} | May 2, 2010
{{end date|2010|05|02|df=y}} | 2 May 2010
{{birth date|1950|1|3}} | January 3, 1950
{{birth date and age|1951|2|4}} | February 4, 1951
{{death date|2001|12}} | December 2001
{{death date and age|2002|6|7|1950|1|3}} | June 7, 2002
{{start date and age|1999}} | 1999
{{film date|2012|8|9}} | August 9, 2012
{{dts|2013|1|2}} | January 2, 2013
{{oldstyledate|2 May|1729|21 April}} | 2 May [O.S. 21 April] 1729
{{circa|1900}} | c. 1900
{{circa|1900|1910}} | c. 1900 – c. 1910
{{c.|1480}} | c. 1480
{{ca.|1490}} | c. 1490
{{reign|1400|1410}} | r. 1400–1410
{{r.|1411}} | r. 1411
{{floruit|1420}} | fl. 1420
{{fl.|1430|1440}} | fl. 1430–1440
{{born in|1900}} | b. 1900
{{b.|1901}} | b. 1901
{{died in|1950}} | d. 1950
{{d.|1951}} | d. 1951
{{US$|5 million}} | US$5 million
{{usd|10}} | US$10
{{A$|5}} {{aud|6}} | A$5 A$6
{{CA$|5}} {{cad|6}} | CA$5 CA$6
{{HK$|5}} {{hkd|6}} | HK$5 HK$6
{{NZ$|5}} {{nzd|6}} | NZ$5 NZ$6
{{£|5}} {{gbp|6}} | £5 £6
{{€|5}} {{eur|6}} {{euro|7}} | €5 €6 €7
{{¥|5}} {{jpy|6}} | ¥5 ¥6
{{INR|5}} {{indian rupee|6}} {{₹|7}} | ₹5 ₹6 ₹7
{{₱|5}} {{php|6}} | ₱5 ₱6
{{₩|5}} {{krw|6}} | ₩5 ₩6
{{S$|5}} {{sgd|6}} {{R$|7}} {{brl|8}} | S$5 S$6 R$7 R$8
{{CNY|5}} {{ILS|6}} {{NGN|7}} | CN¥5 ₪6 ₦7
{{HMS|Ajax|22}} | HMS Ajax
{{HMS|Ajax|22|6}} {{USS|Wasp|CV-7|2}} | Ajax Wasp
{{USS|Texas|BB-35}} | USS Texas
{{ship|French ship|Redoutable}} {{ship||Argo}} | French ship Redoutable Argo
{{HMAS|Sydney}} {{HMCS|Haida}} {{HMNZS|Otago}} {{HMT|Dunera}} | HMAS Sydney HMCS Haida HMNZS Otago HMT Dunera
{{INS|Vikrant}} {{JS|Izumo}} {{MV|Aurora}} {{MS|Batory}} | INS Vikrant JS Izumo MV Aurora MS Batory
{{RMS|Titanic}} {{RV|Calypso}} {{SMS|Emden}} {{SS|Canberra}} | RMS Titanic RV Calypso SMS Emden SS Canberra
{{USCGC|Eagle}} {{USNS|Comfort}} {{USAT|Logan}} {{HNLMS|Tromp}} | USCGC Eagle USNS Comfort USAT Logan HNLMS Tromp
{{HDMS|Fyen}} {{HSwMS|Gotland}} {{GTS|Finnjet}} {{RFA|Argus}} | HDMS Fyen HSwMS Gotland GTS Finnjet RFA Argus
{{ORP|Orzeł}} {{PS|Waverley}} {{TS|Leda}} | ORP Orzeł PS Waverley TS Leda
{{sclass|Iowa|battleship}} | Iowa-class battleship
{{sclass-|Iowa|x}} {{sclass2|River|frigate}} {{sclass2-|A|b}} | Iowa-class x River-class frigate A-class b
{{bibleverse|Genesis|1:1|KJV}} {{bibleref|Ruth|2:3}} {{bibleref2|Ruth|2:3}} | Genesis 1:1 Ruth 2:3 Ruth 2:3
{{cite quran|2|255|s=ns}} | 2:255
{{sortname|Ada|Lovelace}} | Ada Lovelace
{{us patent|123}} | U.S. Patent 123
{{nyse|IBM}} {{nasdaq|AAPL}} | NYSE: IBM Nasdaq: AAPL
{{isbn|0-19-852663-6}} {{oclc|1}} | ISBN 0-19-852663-6 OCLC 1
{{sic|irrega|rdless}} {{sic}} {{sic|teh|hide=y}} | irregardless [sic] [sic] teh
{{lc:ABC}} {{uc:def}} {{ucfirst:ghi}} {{lcfirst:JKL}} | abc DEF Ghi jKL
{{"|a quotation}} | "a quotation"
5{{ndash}}6{{en dash}}7{{–}}8 | 5–6–7–8
a{{snd}}b{{snds}}c{{spaced ndash}}d{{spaced en dash}}e{{spnd}}f | a – b – c – d – e – f
a{{mdash}}b{{mdashb}}c{{em dash}}d{{—}}e | a—b—c—d—e
a{{·}} b{{dot}} c{{middot}} d{{•}} e{{bull}} f{{bullet}} g{{\}} h | a · b · c · d • e • f • g / h
a{{nbsp}}b{{nbs}}c{{spaces}}d{{space}}e{{thinsp}}f{{thin space}}g | a b c d e f g
a{{hair space}}b{{hairsp}}c{{nnbsp}}d{{narrow nbsp}}e{{gap}}f{{br}}g{{break}}h{{crlf}}i | a b c d e f g h i
{{!}}x{{pipe}} {{=}} {{*}} {{[}}a{{]}} | |x| = * [a]
{{okina}}a {{pi}} 5{{prime}} 6{{pprime}} {{minus}}7 a{{eqm}}b | ʻa π 5′ 6″ −7 a⇌b
''Eagle''{{'s}} {{' "}}a{{" '}} {{'-}}b | Eagle's '"a"' 'b
{{inflation|US|5|1990}}{{citation needed}}{{flagicon|US}}{{efn|a}} |
"""
BLOCKS = [
    *("quote", "blockquote", "block quote", "bq", "cquote", "quotation", "quote box", "quote frame", "poemquote"),
    *("poem quote", "pull quote", "centered pull quote", "block indent", "bi"),
]
"""Templates that show their text as a block of its own."""
BREAKS = ["-", "clear", "pb", "paragraph break", "parabr"]
TABLES = ["(!", "!)", "!!"]
"""Templates for the marks of tables, which are left out."""


@pytest.mark.parametrize("case", SHOWN.strip().splitlines())
def test_text_of_templates(case: str) -> None:
    markup, _, expected = case.rpartition(" | ") if " | " in case else (case.removesuffix(" |"), "", "")
    assert "".join(map(literal, prose(f"It is {markup} ."))).replace("  ", " ") in (
        f"It is {expected} .",
        f"It is{' ' if expected else ''}{expected}.",
    )


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_paragraphs(name: str) -> None:
    assert list(prose(f"He said: {{{{{name}|text=A.|author}}}} So")) == ["He said: ", "A.", " So"]


def test_breaks_and_tables() -> None:
    for name in BREAKS:
        assert list(prose(f"One.{{{{{name}}}}}Two.")) == ["One.", "Two."]
    assert list(prose("a\n{{(!}}\n{{!}} b {{!!}} c\n{{!)}}\nd")) == ["a", "", "d"]


def test_every_template_has_a_test() -> None:
    tested = {name.strip().lower().replace("_", " ") for name in re.findall(r"\{\{([^|{}]+?)(?=[|:]|\}\})", SHOWN)}
    assert set(_RENDERERS) - tested - {*BLOCKS, *BREAKS, *TABLES} == set()
    assert len(_RENDERERS) >= 200


VALUES = ["", "1", "5.5", "1,000", "abc", "km", "ft", "in", "e6", "-", "to", "(", "N", "W", "12", "é", "a b", "?", "²"]
KEYS = [
    "adj=on",
    "adj=mid",
    "sp=us",
    "abbr=on",
    "e=3",
    "u=m",
    "lt=x",
    "df=y",
    "1=a",
    "2=",
    "text=t",
    "label=",
    "=",
    "9=z",
]


@FUZZ
@given(st.sampled_from(sorted(_RENDERERS)), st.lists(st.sampled_from([*VALUES, *KEYS]), max_size=7))
def test_any_arguments_give_text(name: str, values: list[str]) -> None:
    assert template_text("|".join([name, *values])).count("\n") <= 2


def test_other_templates_show_nothing() -> None:
    assert [template_text(name) for name in ("infobox|a=1", "cn", ":Page", "#if:a|b", "", "|", "=")] == [""] * 6 + ["="]
