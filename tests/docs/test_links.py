"""All links of the documentation resolve, on GitHub and on a package index's page."""

import re
import tomllib

import pytest
import yaml
from support.pages import MANUAL, OTHERS, REPOSITORY, ROOT, anchors, links, read

RAW = REPOSITORY.replace("https://github.com", "https://raw.githubusercontent.com") + "/main/"
BLOB = f"{REPOSITORY}/blob/main/"
PAGES = [*MANUAL, *OTHERS]
LINKS = [pytest.param(page, link, id=f"{page}: {link}") for page in PAGES for link in links(page)]


def local(page, link):
    """Path and anchor in this repository, or None for a page elsewhere."""
    path, _, anchor = link.partition("#")
    for start in (RAW, BLOB):
        if path.startswith(start):
            return path.removeprefix(start), anchor
    if "://" in path:
        return None
    return ((ROOT / page).parent / path).resolve().relative_to(ROOT).as_posix() if path else page, anchor


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_link(page, link):
    target = local(page, link)
    if target is None:
        assert link.startswith("https://")
        assert REPOSITORY not in link or link.startswith(f"{REPOSITORY}/commits/")
        return
    path, anchor = target
    assert (ROOT / path).exists(), path
    if anchor:
        assert anchor in anchors(path), f"{anchor}: there are {sorted(anchors(path))}"


def test_the_readme_works_on_a_package_index():
    """Where there is no repository around it, and no HTML of one's own."""
    assert len(links("README.md")) > 20
    assert all(link.startswith("https://") for link in links("README.md"))
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", read("README.md"))
    assert len(pictures) == 2
    assert all(picture.startswith(RAW) for picture in pictures)


def test_the_readme_stays_short():
    assert len(read("README.md").splitlines()) <= 170


def test_the_address_is_everywhere_the_same():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert project["urls"]["Homepage"] == REPOSITORY
    assert all(url.startswith(REPOSITORY) for url in project["urls"].values())
    for url in project["urls"].values():
        if url.startswith(BLOB):
            assert (ROOT / url.removeprefix(BLOB)).is_file()
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["repository-code"] == REPOSITORY
    assert citation["version"] == project["version"]


@pytest.mark.parametrize("index", ["docs/README.md", "README.md"])
def test_every_page_is_in_the_index(index):
    pages = {page for page in MANUAL if page.startswith("docs/")} - {"docs/README.md"}
    if index == "README.md":
        pages -= {"docs/releasing.md"}  # for maintainers
    targets = (local(index, link) for link in links(index))
    assert pages <= {target[0] for target in targets if target}
