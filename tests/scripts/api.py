"""api.py NODE OTHER MOUNT: uses the API for programs at two nodes, beside a mount of the same ring, and checks every answer."""
import base64
import json
import os
import socket
import sys
import time
from urllib.parse import quote

import requests

TIMEOUT = 60
MIB = 1 << 20


def main():
    node, other, mount = ("http://%s:5058" % sys.argv[1], "http://%s:5058" % sys.argv[2], sys.argv[3])
    text_and_bytes(node, other, mount)
    files_of_the_mount(node, mount)
    bad_input(node)
    cut_off(sys.argv[1], node, mount)
    plain_http(node, other, mount)
    members(node)
    print("ok")


def upload(node, key, data):
    return requests.post(node + "/api/upload", data={"key": key}, files={"file": ("local", data)}, timeout=TIMEOUT)


def read(node, key):
    return requests.post(node + "/api/key/" + quote(key), timeout=TIMEOUT)


def keys(node):
    answer = check(requests.post(node + "/api/list_keys", timeout=TIMEOUT))
    return answer["keys"]


def check(response, status=200):
    answer = response.json()
    assert response.status_code == status, (response.status_code, answer)
    assert answer["success"] == ("true" if status == 200 else "false"), answer
    if status != 200:
        assert set(answer) == {"success", "error"} and set(answer["error"]) == {"code", "message"}, answer
        assert answer["error"]["code"] == status and len(answer["error"]["message"]) > 10, answer
    return answer


def text_and_bytes(node, other, mount):
    binary = os.urandom(3 * MIB + 1)
    for key, data in [("docs/2026/grüße.txt", "grüße\n".encode()), ("raw", binary), ("empty", b"")]:
        assert check(upload(node, key, data)) == {"success": "true"}
        answer = check(read(other, key))
        assert set(answer) == {"success", "encoding", "content"}, answer.keys()
        content = answer["content"]
        assert (content.encode() if answer["encoding"] == "utf-8" else base64.b64decode(content)) == data, key
        with open(os.path.join(mount, key), "rb") as file:
            assert file.read() == data, key
    assert read(other, "raw").json()["encoding"] == "base64"
    assert keys(other) == ["docs/2026/grüße.txt", "empty", "raw"], keys(other)


def files_of_the_mount(node, mount):
    os.makedirs(os.path.join(mount, "a/b"))
    with open(os.path.join(mount, "a/b/c"), "w") as file:
        file.write("from the mount")
    assert check(read(node, "a/b/c"))["content"] == "from the mount"
    assert "a/b/c" in keys(node)
    assert check(upload(node, "a/b/c", b"from the API"))
    with open(os.path.join(mount, "a/b/c")) as file:
        assert file.read() == "from the API"


def bad_input(node):
    before = keys(node)
    for key in ["..", "../x", "a/../x", "a\0b", "k" * 4000, "k/" * 1999 + "k", "", "a/"]:
        check(upload(node, key, b"x"), 400)
    check(requests.post(node + "/api/upload", files={"key": (None, "k")}, timeout=TIMEOUT), 400)
    check(requests.post(node + "/api/upload", files={"file": ("k", b"x")}, timeout=TIMEOUT), 400)
    check(requests.post(node + "/api/upload", data="not a form", timeout=TIMEOUT), 400)
    check(requests.post(node + "/api/upload", params={"key": "k"}, files={"file": b"x"}, timeout=TIMEOUT), 400)
    check(requests.post(node + "/api/list_keys", params={"a": "b"}, timeout=TIMEOUT), 400)
    check(requests.get(node + "/api/list_keys", timeout=TIMEOUT), 405)
    check(requests.post(node + "/api/other", timeout=TIMEOUT), 404)
    check(read(node, "missing"), 404)
    check(upload(node, "a/b", b"x"), 409)
    check(upload(node, "raw/x", b"x"), 409)
    foreign = {"Origin": "http://evil.example"}
    check(requests.post(node + "/api/upload", headers=foreign, files={"key": "k", "file": "x"}, timeout=TIMEOUT), 403)
    check(requests.post(node + "/api/list_keys", headers={"Host": "evil.example"}, timeout=TIMEOUT), 403)
    assert keys(node) == before, keys(node)


def cut_off(ip, node, mount):
    """A program that ends in the middle of its upload leaves neither a file nor a folder."""
    with socket.create_connection((ip, 5058), TIMEOUT) as connection:
        connection.sendall(
            b"POST /api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n"
            b"Content-Type: multipart/form-data; boundary=B\r\n\r\n"
            b'--B\r\nContent-Disposition: form-data; name="key"\r\n\r\ncut/off\r\n'
            b'--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + bytes(9 * MIB)
        )
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        assert "cut/off" not in keys(node) and not os.path.exists(os.path.join(mount, "cut"))
        time.sleep(0.2)


def plain_http(node, other, mount):
    url, data = node + "/p/q.bin", os.urandom(MIB + 17)
    assert requests.put(url, data=data, timeout=TIMEOUT).status_code == 201
    assert requests.put(url, data=data, timeout=TIMEOUT).status_code == 204
    assert requests.put(url, data=b"x", headers={"If-None-Match": "*"}, timeout=TIMEOUT).status_code == 412
    response = requests.get(other + "/p/q.bin", timeout=TIMEOUT)
    assert response.content == data
    tag = {"If-None-Match": response.headers["ETag"]}
    assert requests.get(url, headers=tag, timeout=TIMEOUT).status_code == 304
    part = requests.get(url, headers={"Range": "bytes=4090-4100"}, timeout=TIMEOUT)
    assert (part.status_code, part.content) == (206, data[4090:4101])
    listing = requests.get(node + "/p/", headers={"Accept": "application/json"}, timeout=TIMEOUT).json()
    assert [(entry["name"], entry["size"]) for entry in listing["entries"]] == [("q.bin", len(data))], listing
    big = requests.put(node + "/p/big", data=bytes(16 * MIB + 1), timeout=TIMEOUT)
    assert big.status_code == 201, big.text
    assert "GET /p/big" in check(read(node, "p/big"), 413)["error"]["message"]
    for name in ["q.bin", "big"]:
        assert requests.delete(node + "/p/" + name, timeout=TIMEOUT).status_code == 204
    assert requests.get(other + "/p/q.bin", timeout=TIMEOUT).status_code == 404
    assert not os.path.exists(os.path.join(mount, "p/q.bin"))


def members(node):
    with requests.get(node + "/api/events", stream=True, timeout=TIMEOUT) as response:
        for line in response.iter_lines(decode_unicode=True):
            if line.startswith("data: "):
                found = json.loads(line[len("data: "):])["members"]
                if len(found) == 3 and all(member["state"] == "up" for member in found):
                    return


main()
