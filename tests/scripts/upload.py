"""upload.py NODE FILE [--create]: cuts FILE into 4000-byte chunks and uploads each to the node that owns its key."""
import os
import sys

import requests

from chord_names import CHUNK_SIZE, chunk_name, key_of, successor


def main():
    ip, path = sys.argv[1], sys.argv[2]
    create_first = "--create" in sys.argv[3:]
    filename = os.path.basename(path)
    with open(path, "rb") as source:
        index = 1
        while True:
            data = source.read(CHUNK_SIZE)
            if not data:
                break
            name = chunk_name(filename, index)
            owner, _, _ = successor(ip, key_of(name), create_first)
            answer = requests.post("http://%s:5058/upload" % owner, files={"files": (name, data)}, timeout=30)
            if answer.status_code != 204:
                sys.exit("%s: %d %s" % (name, answer.status_code, answer.text))
            index += 1
    print(index - 1)


main()
