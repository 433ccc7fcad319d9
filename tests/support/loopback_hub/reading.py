"""Endpoints that list and load, and those of collections."""

import hashlib
import re
import urllib.parse

from support.loopback_hub.pushing import front_matter
from support.loopback_hub.store import HubError


def info(request, kind, name, revision=None):
    repo = request.find(kind, name)
    oid, tree = repo.at(revision or "main")
    card = {}
    if "README.md" in tree:
        card = front_matter(request.hub.blobs.get(tree["README.md"].sha256).decode()) or {}
    bases = card.get("base_model") or []
    tags = [
        *(card.get("tags") or []),
        *(f"base_model:{base}" for base in ([bases] if isinstance(bases, str) else bases)),
    ]
    files = [
        {"rfilename": path, **(_blob(file) if "blobs" in request.query else {})} for path, file in sorted(tree.items())
    ]
    date = repo.commits[oid].date
    known = {"pipeline_tag": card.get("pipeline_tag"), "library_name": card.get("library_name"), "cardData": card}
    request.send(200, {
        "_id": "0", "id": repo.name, "modelId": repo.name, "author": repo.owner, "sha": oid, "lastModified": date,
        "createdAt": date, "private": repo.private, "gated": False, "disabled": False, "downloads": 0, "likes": 0,
        "tags": tags, "siblings": files, **known,
    })  # fmt: skip


def _blob(file):
    large = {"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": 130}} if file.lfs else {}
    return {"size": file.size, "blobId": file.oid, **large}


def _entry(path, file):
    large = {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 130}} if file.lfs else {}
    return {"type": "file", "path": path, "size": file.size, "oid": file.oid, **large}


def _folder(path):
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def tree(request, kind, name, revision, path=None):
    _, files = request.find(kind, name).at(revision)
    start = f"{path.strip('/')}/" if path else ""
    below = {found: file for found, file in files.items() if found.startswith(start)}
    if start and not below:
        raise HubError(404, f"{path} does not exist on {revision}", "EntryNotFound")
    recursive = request.query.get("recursive", "").lower() in ("true", "1")
    parents = {start + "/".join(part[:depth]) for part in (p[len(start):].split("/") for p in below) for depth in range(1, len(part))}  # fmt: skip
    shown = [_folder(parent) for parent in sorted(parents) if recursive or "/" not in parent[len(start) :]]
    shown += [_entry(p, file) for p, file in sorted(below.items()) if recursive or "/" not in p[len(start) :]]
    request.send(200, shown)


def paths_info(request, kind, name, revision):
    _, files = request.find(kind, name).at(revision)
    if "json" in (request.headers.get("Content-Type") or ""):
        paths = request.json()["paths"]
    else:
        paths = [value for key, value in urllib.parse.parse_qsl(request.body.decode()) if key == "paths"]
    answers = []
    for path in (path.strip("/") for path in ([paths] if isinstance(paths, str) else paths)):
        if path in files:
            answers.append(_entry(path, files[path]))
        elif path == "" or any(found.startswith(f"{path}/") for found in files):
            answers.append(_folder(path))
    request.send(200, answers)


def refs(request, kind, name):
    repo = request.find(kind, name)

    def listed(names, place):
        return [{"name": n, "ref": f"refs/{place}/{n}", "targetCommit": commit} for n, commit in names.items()]

    request.send(200, {"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags"), "converts": [], "pullRequests": []})  # fmt: skip


def commits(request, kind, name, revision):
    found = request.find(kind, name).history(revision)
    request.send(200, [
        {"id": oid, "title": commit.title, "message": "", "date": commit.date, "authors": [{"user": commit.author}]}
        for oid, commit in found
    ])  # fmt: skip


def resolve(request, name, revision, path, kind=None):
    """Send a file, or the part of it that is asked for."""
    oid, files = request.find((kind or "models/").rstrip("/"), name).at(revision)
    if path not in files:
        raise HubError(404, "Entry not found", "EntryNotFound")
    file = files[path]
    data = request.hub.blobs.get(file.sha256)
    headers = {"Content-Type": "application/octet-stream", "X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
    headers["ETag"] = f'"{file.sha256 if file.lfs else file.oid}"'
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range") or "")
    if wanted is None:
        return request.send(200, data, headers)
    start = int(wanted[1]) if wanted[1] else len(data) - int(wanted[2])
    stop = min(int(wanted[2]) + 1 if wanted[1] and wanted[2] else len(data), len(data))
    if start >= len(data):
        raise HubError(416, "out of range")
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return request.send(206, data[start:stop], headers)


def create_collection(request):
    user, asked = request.user(), request.json()
    words = re.sub("[^a-z0-9]+", "-", asked["title"].lower())
    slug = f"{asked.get('namespace') or user}/{words}-{hashlib.sha1(asked['title'].encode()).hexdigest()[:24]}"
    if slug in request.hub.collections:
        return request.send(409, request.hub.collections[slug])
    request.hub.collections[slug] = {
        "slug": slug, "title": asked["title"], "description": asked.get("description"), "items": [], "position": 0,
        "owner": {"name": user, "type": "user"}, "lastUpdated": "2026-01-01T00:00:00.000Z", "theme": "orange",
        "private": bool(asked.get("private")), "upvotes": 0, "isUpvotedByUser": False,
    }  # fmt: skip
    return request.send(200, request.hub.collections[slug])


def collection(request, slug):
    if slug not in request.hub.collections:
        raise HubError(404, "Collection not found")
    request.send(200, request.hub.collections[slug])


def add_to_collection(request, slug):
    request.user()
    item, items = request.json()["item"], request.hub.collections[slug]["items"]
    if any(known["id"] == item["id"] and known["type"] == item["type"] for known in items):
        raise HubError(409, "already in the collection")
    name = hashlib.sha1(item["id"].encode()).hexdigest()[:24]
    items.append({"_id": name, "position": len(items), "repoType": item["type"], **item})
    request.send(200, request.hub.collections[slug])
