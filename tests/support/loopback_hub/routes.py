"""Which function answers which request."""

from support.loopback_hub import pushing, reading

REPO = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
GIT = r"/(?P<kind>datasets/)?(?P<name>(?!api/)[^/]+/[^/]+)"

ROUTES = [
    ("GET", r"/api/whoami-v2", pushing.whoami),
    ("POST", r"/api/repos/create", pushing.create),
    ("POST", r"/api/validate-yaml", pushing.validate_yaml),
    ("PUT", REPO + r"/settings", pushing.settings),
    ("POST", REPO + r"/preupload/(?P<revision>[^/]+)", pushing.preupload),
    ("POST", GIT + r"\.git/info/lfs/objects/batch", pushing.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", pushing.lfs_put),
    ("POST", r"/lfs/verify", pushing.lfs_verify),
    ("POST", REPO + r"/commit/(?P<revision>[^/]+)", pushing.commit),
    ("POST", REPO + r"/branch/(?P<branch>[^/]+)", pushing.branch),
    ("POST", REPO + r"/tag/(?P<revision>[^/]+)", pushing.tag),
    ("DELETE", REPO + r"/tag/(?P<revision>[^/]+)", pushing.delete_tag),
    ("GET", REPO, reading.info),
    ("GET", REPO + r"/revision/(?P<revision>[^/]+)", reading.info),
    ("GET", REPO + r"/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", reading.tree),
    ("POST", REPO + r"/paths-info/(?P<revision>[^/]+)", reading.paths_info),
    ("GET", REPO + r"/refs", reading.refs),
    ("GET", REPO + r"/commits/(?P<revision>[^/]+)", reading.commits),
    ("GET HEAD", GIT + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", reading.resolve),
    ("POST", r"/api/collections", reading.create_collection),
    ("GET", r"/api/collections/(?P<slug>[^/]+/[^/]+)", reading.collection),
    ("POST", r"/api/collections/(?P<slug>[^/]+/[^/]+)/items", reading.add_to_collection),
]
