"""The documentation as data: its pages, and their blocks of code, sections, tables and links."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/ddpo-plugins/ddpo-plugins"

MANUAL = ("README.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))), "CONTRIBUTING.md")
# Also shown by GitHub or with the package; their links must be right, too.
OTHERS = (
    "CHANGELOG.md",
    *(file.relative_to(ROOT).as_posix() for file in sorted((ROOT / "examples").glob("*/README.md"))),
    "reward_plugins/judge/README.md",
    "trainer_ext/embedded/README.md",
)

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
PYTHON = {".venv/bin/python", "python", "python3"}


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """A block of code. `line` is that of its first line in the page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"

    def compiled(self, text=None):
        """Tracebacks show the page and the line."""
        return compile("\n" * (self.line - 1) + (text or self.text), self.page, "exec")


def blocks(page, language):
    """In the order in which a reader meets them."""
    text = read(page)
    return [
        Block(page, text.count("\n", 0, match.start(3)) + 1, match[2], match[3])
        for match in FENCE.finditer(text)
        if match[2] == language
    ]


def all_blocks(language):
    return [block for page in MANUAL for block in blocks(page, language)]


def prose(page):
    """A page without its blocks of code."""
    return FENCE.sub("", read(page))


def section(page, heading):
    """From a heading of the second level to the next."""
    (found,) = re.findall(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", read(page), flags=re.DOTALL | re.MULTILINE)
    return found


def table(page, header):
    """The rows below a header, such as `name | higher is better | weights`, of the one table that has it."""
    (found,) = re.findall(rf"^\| {re.escape(header)} \|\n\|[-|]+\n((?:\|.*\n)+)", read(page), flags=re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in found.splitlines()]


def spans(text):
    """Inline code."""
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]


def lines(block):
    """The commands of a block of bash, as words."""
    each = (shlex.split(line, comments=True) for line in block.text.replace("\\\n", " ").splitlines())
    return [words for words in each if words]


def ddpo_arguments(words):
    """What a command line gives to `ddpo`, or None: it may stand behind torchrun or accelerate."""
    for start in (["ddpo"], ["-m", "trainer_ext.cli"]):
        for index in range(len(words)):
            if words[index : index + len(start)] == start:
                return [word for word in words[index + len(start) :] if word != "..."]
    return None


def anchors(page):
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page):
    """Targets of links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", " ".join(prose(page).split("\n")))
