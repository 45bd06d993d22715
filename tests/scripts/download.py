"""download.py NODE NAME TARGET [--create]: fetches NAME's chunks until one is missing, and joins them in TARGET."""
import sys

import requests

from chord_names import chunk_name, key_of, successor


def main():
    ip, filename, target = sys.argv[1], sys.argv[2], sys.argv[3]
    create_first = "--create" in sys.argv[4:]
    with open(target, "wb") as out:
        index = 1
        while True:
            name = chunk_name(filename, index)
            owner, _, _ = successor(ip, key_of(name), create_first)
            answer = requests.get("http://%s:5058/%s" % (owner, name), timeout=30)
            if answer.status_code == 404:
                break
            if answer.status_code != 200:
                sys.exit("%s: %d %s" % (name, answer.status_code, answer.text))
            out.write(answer.content)
            index += 1
    print(index - 1)


main()
