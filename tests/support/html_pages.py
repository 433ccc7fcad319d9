"""HTML as a tree, strict: every element is closed, and no id is given twice."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "input", "hr", "link"}


@dataclass
class Element:
    tag: str
    attributes: dict
    parent: "Element | None" = None
    children: list = field(default_factory=list)

    @property
    def text(self):
        """With spaces as they are shown."""
        parts = [child if isinstance(child, str) else child.text for child in self.children]
        return " ".join("".join(parts).split())

    @property
    def classes(self):
        return (self.attributes.get("class") or "").split()

    def all(self, tag=None, cls=None, **attributes):
        """Elements below this one, in order."""
        for child in self.children:
            if isinstance(child, Element):
                wanted = all(child.attributes.get(name) == value for name, value in attributes.items())
                if tag in (None, child.tag) and (cls is None or cls in child.classes) and wanted:
                    yield child
                yield from child.all(tag, cls, **attributes)

    def one(self, tag=None, cls=None, **attributes):
        (found,) = self.all(tag, cls, **attributes)
        return found

    def rows(self):
        """The cells of a table's body: a number in data-value, or the text."""
        for row in self.one("tbody").all("tr"):
            yield [cell.attributes.get("data-value", cell.text) for cell in row.children if isinstance(cell, Element)]


class _Parser(HTMLParser):
    def __init__(self):
        super().__init__()
        self.here = self.root = Element("document", {})

    def handle_starttag(self, tag, attributes):
        element = Element(tag, dict(attributes), self.here)
        assert len(element.attributes) == len(attributes), f"an attribute of {tag} is given twice"
        self.here.children.append(element)
        if tag not in VOID:
            self.here = element

    def handle_startendtag(self, tag, attributes):
        self.here.children.append(Element(tag, dict(attributes), self.here))

    def handle_endtag(self, tag):
        assert self.here.tag == tag, f"{self.here.tag} is not closed before {tag}"
        self.here = self.here.parent

    def handle_data(self, data):
        self.here.children.append(data)


def page(file):
    """A page whose elements are closed, whose ids differ, and whose inner links lead somewhere."""
    parser = _Parser()
    parser.feed(file.read_text(encoding="utf-8"))
    parser.close()
    assert parser.here is parser.root
    ids = [element.attributes["id"] for element in parser.root.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in parser.root.all():
        for name in ("href", "xlink:href"):
            target = element.attributes.get(name) or ""
            assert not target.startswith("#") or target[1:] in ids, target
    return parser.root
