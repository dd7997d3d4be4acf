"""The emulator of Google Cloud Storage, with pages, and without needless notes.

    python tests/gcs_emulator.py start --in-memory …

At each object that is written it writes down what it knows of all of them, in case that it is
started again: 4,000 objects take it seven minutes of a core, and each one more a fifth of a second.

It lists all objects in one answer, wherever it was asked to begin. Google's store gives a page:
https://cloud.google.com/storage/docs/json_api/v1/objects/list
"""

import sys

from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.storage import Storage

PAGE = 1_000

Storage._write_config_to_file = lambda self: None
list_all = objects.ls


def list_page(request, response, *more, **values):
    send = response.json
    response.json = lambda listed: send(cut_page(listed, request.query))
    list_all(request, response, *more, **values)


def cut_page(listed, query):
    begin = query.get("startOffset", [""])[0]
    after = query.get("pageToken", [""])[0]
    most = min(PAGE, int(query.get("maxResults", [PAGE])[0]))
    named = {item["name"]: item for item in listed["items"]}
    # A page has prefixes, too, in one order with the objects, which is that of their bytes.
    names = sorted([*named, *listed["prefixes"]], key=str.encode)
    names = [name for name in names if name.encode() >= begin.encode()]
    left = [name for name in names if name.encode() > after.encode()]
    page, token = left[:most], {"nextPageToken": left[most - 1]} if len(left) > most else {}
    items = [named[name] for name in page if name in named]
    return {**listed, "items": items, "prefixes": [n for n in page if n not in named], **token}


objects.ls = list_page
from gcp_storage_emulator.__main__ import main  # noqa: E402 (it looks `ls` up once)

if __name__ == "__main__":
    main(sys.argv[1:])
