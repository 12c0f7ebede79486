"""Texts that tokenizers trip over, and the formats of the families, for the tests of text input."""

from triarch.inputs.text.format import TextFormat
from triarch.models import family

PROBES = {
    "plain": "Hello, world! This is a test.",
    "accents": "café cafe\u0301 naïve Ångström",
    "full width": "ＦＵＬＬ　ｗｉｄｔｈ ﬁ ㎏ ½",
    "CJK": "日本語のテキスト 中文字符",
    "Hangul": "한국어 \u1112\u1161\u11ab",
    "emoji": "family 👨‍👩‍👧‍👦 flag 🇫🇷 thumb 👍🏽!",
    "spaces": "a\u00a0b\u2003c\u3000d\u2028e\u2029f\u200bg\ufeffh",
    "control": "ctrl \x00\x01\x1b[31m\x7f end \ufffd",
    "lines": "tab\there\nnew\r\nline\n\n\nend",
    "long word": "a" * 5000,
    "long run": "!" * 1000,
    "marks": "e" + "\u0301" * 1000,
    "directions": "\u202eabc\u202c \u2066x\u2069 אבג",
    "BERT's specials": "[MASK] and [CLS] [SEP] hi [UNK][PAD]",
    "RoBERTa's specials": "The <mask> is </s> <s>ok</s><pad> <unk>",
    "digits": "１２３ 123,456.78 1e10",
    "case": "MiXeD CaSe İstanbul ß ẞ",
    "empty": "",
    "only spaces": "     ",
    "loose": "  lead  and   trail   ",
    "Thai": "ภาษาไทย ทดสอบ",
    "Arabic": "مرحبا بالعالم ١٢٣",
    "apostrophes": "don't can't I'm we've they're it's",
    "underlines": "▁under ▁▁ score",
    "beyond the BMP": "\U00010348\U0002070e 𝓣𝓮𝔁𝓽",
}
PAIRS = [
    ("What is it?", "It is café 日本 👍🏽."),
    ("", "only the second"),
    (" first ", "  second  "),
    ("a" * 300, "! " * 300),
    ("[MASK] <mask>", "a [SEP] </s> b"),
]

BERT, ROBERTA, XLM_ROBERTA = (family(name).reads for name in ("bert", "roberta", "xlm-roberta"))
PLAIN = TextFormat(single="$A", pair="$A $B", specials={"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"})
