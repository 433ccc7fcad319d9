"""Endpoints that create repositories and write to them."""

import base64
import hashlib
import json
import re

import yaml

from support.loopback_hub.store import LFS_PATTERNS, HubError, Repo, is_large, large, regular


def front_matter(text):
    """Return the YAML at the beginning of a card; None without."""
    match = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    return yaml.safe_load(match[1]) if match else None


def whoami(request):
    user = request.user()
    access = {"type": "access_token", "accessToken": {"displayName": "test", "role": request.role()}}
    request.send(200, {"type": "user", "id": user, "name": user, "fullname": user, "isPro": False, "orgs": [], "auth": access})  # fmt: skip


def create(request):
    user, asked = request.user(), request.json()
    name, kind = f"{asked.get('organization') or user}/{asked['name']}", asked.get("type") or "model"
    if not name.startswith(f"{user}/") or request.role() != "write":
        raise HubError(403, "You don't have the rights to create a repo under this namespace")
    hub = request.hub
    private = asked.get("private") or asked.get("visibility") == "private"
    existing = hub.repos.get((kind, name))
    repo = existing or Repo(kind, name, bool(private))
    url = f"{hub.url}/{repo.prefix}{name}"
    if existing:
        return request.send(409, {"error": f"You already created this {kind} repo", "url": url, "name": name})
    hub.repos[kind, name] = repo
    attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
    repo.commit({".gitattributes": regular(hub.blobs, attributes.encode())}, "initial commit", "main", user)
    return request.send(200, {"url": url, "name": name, "id": name})


def settings(request, kind, name):
    repo, asked = request.find(kind, name, write=True), request.json()
    repo.private = asked.get("private", asked.get("visibility") == "private")
    request.send(200, {"private": repo.private})


def validate_yaml(request):
    """The real one knows the fields; this one knows whether it is YAML."""
    try:
        content = front_matter(request.json()["content"])
    except yaml.YAMLError as error:
        return request.send(400, {"errors": [{"message": str(error)}], "warnings": []})
    missing = [] if content else [{"message": "empty or missing yaml metadata in repo card"}]
    return request.send(200, {"errors": [], "warnings": missing})


def preupload(request, kind, name, revision):
    """Say of each file how it is to be uploaded, and which content is there already."""
    _, tree = request.find(kind, name, write=True).at(revision)
    answers = []
    for file in request.json()["files"]:
        path, old = file["path"], tree.get(file["path"])
        mode = "lfs" if is_large(path, file["size"]) else "regular"
        known = {"oid": old.sha256 if old.lfs else old.oid} if old else {}
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
    request.send(200, {"files": answers})


def lfs_batch(request, name, kind=None):
    request.find((kind or "models/").rstrip("/"), name, write=True)
    objects = []
    for wanted in request.json()["objects"]:
        place, check = f"{request.hub.url}/lfs/{wanted['oid']}", f"{request.hub.url}/lfs/verify"
        there = request.hub.blobs.size(wanted["oid"]) is not None
        actions = {} if there else {"actions": {"upload": {"href": place}, "verify": {"href": check}}}
        objects.append({**wanted, **actions})
    request.send(200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"})


def lfs_put(request, oid):
    """A signed address: no token is sent."""
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise HubError(400, "sha256 mismatch")
    request.hub.blobs.put(request.body)
    request.send(200)


def lfs_verify(request):
    request.user()
    wanted = request.json()
    if request.hub.blobs.size(wanted["oid"]) != wanted["size"]:
        raise HubError(404, "object not found")
    request.send(200, {})


def commit(request, kind, name, revision):
    repo, blobs = request.find(kind, name, write=True), request.hub.blobs
    head, tree = repo.at(revision)
    tree, title = dict(tree), ""
    for line in request.body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header":
            title = value["summary"]
            if value.get("parentCommit") not in (None, head):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
        elif item["key"] == "file":
            tree[value["path"]] = regular(blobs, base64.b64decode(value["content"]))
        elif item["key"] == "lfsFile":
            if blobs.size(value["oid"]) is None:
                raise HubError(400, f"LFS object {value['oid']} was not uploaded")
            tree[value["path"]] = large(value["oid"], blobs.size(value["oid"]))
        else:
            _delete(tree, item["key"], value["path"])
    branch = revision if revision in repo.branches else "main"
    oid = repo.commit(tree, title, branch, request.user())
    url = f"{request.hub.url}/{repo.prefix}{name}/commit/{oid}"
    request.send(200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def _delete(tree, key, path):
    gone = [
        name for name in tree if name == path or (key == "deletedFolder" and name.startswith(path.rstrip("/") + "/"))
    ]
    if not gone:
        raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
    for name in gone:
        del tree[name]


def branch(request, kind, name, branch):
    repo = request.find(kind, name, write=True)
    if branch in repo.branches:
        raise HubError(409, f"Reference already exists: {branch}")
    repo.branches[branch], _ = repo.at(request.json().get("startingPoint") or "main")
    request.send(200, {})


def tag(request, kind, name, revision):
    repo, wanted = request.find(kind, name, write=True), request.json()["tag"]
    if wanted in repo.tags:
        raise HubError(409, f"Tag reference already exists: {wanted}")
    repo.tags[wanted], _ = repo.at(revision)
    request.send(200, {})


def delete_tag(request, kind, name, revision):
    repo = request.find(kind, name, write=True)
    if repo.tags.pop(revision, None) is None:
        raise HubError(404, "Tag not found", "RevisionNotFound")
    request.send(200, {})
