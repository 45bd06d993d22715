"""api.py NODE OTHER MOUNT: uses the API for programs at two nodes, beside a mount of the same ring, and checks every answer."""
import asyncio
import base64
import json
import os
import socket
import sys
import threading
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
    lists_while_folders_change(node, mount)
    uploads_at_once(sys.argv[1], node)
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
        chunks = "http://%s:5059/chunks" % ip
        while "cut/off_chunk_" not in requests.get(chunks, timeout=TIMEOUT).text:
            time.sleep(0.05)
    deadline = time.monotonic() + 60
    while "cut/off_chunk_" in requests.get(chunks, timeout=TIMEOUT).text:
        assert "cut/off" not in keys(node) and not os.path.exists(os.path.join(mount, "cut"))
        assert time.monotonic() < deadline, "chunks of the upload are still stored"
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


def lists_while_folders_change(node, mount):
    """A list is whole whatever happens to other folders meanwhile."""
    for at in range(40):
        os.makedirs(os.path.join(mount, "list/%02d" % at))
        with open(os.path.join(mount, "list/%02d/kept" % at), "w"):
            pass
    ended = threading.Event()
    changing = threading.Thread(target=change_folders, args=(os.path.join(mount, "list"), ended))
    changing.start()
    try:
        for _ in range(10):
            kept = [key for key in keys(node) if key.startswith("list/") and key.endswith("/kept")]
            assert kept == ["list/%02d/kept" % at for at in range(40)], kept
    finally:
        ended.set()
        changing.join()


def change_folders(folder, ended):
    at = 0
    while not ended.is_set():
        new = os.path.join(folder, "%02d-new" % (at % 40))
        os.mkdir(new)
        with open(os.path.join(new, "file"), "w"):
            pass
        os.rename(new, new + "er")
        os.remove(os.path.join(new + "er", "file"))
        os.rmdir(new + "er")
        at += 1


def uploads_at_once(ip, node):
    """A thousand uploads at once are stored, or get 503 with the time of the next attempt."""
    statuses = asyncio.run(send_at_once(ip, 1000))
    stored = {"at-once/%d" % at for at, status in enumerate(statuses) if status == 200}
    assert len(stored) > 100 and set(statuses) <= {200, 503}, sorted(set(statuses))
    listed = {key for key in keys(node) if key.startswith("at-once/")}
    assert listed >= stored, "not listed: %s" % sorted(stored - listed)
    # An upload that is answered 503 because it took too long may have been stored all the same.
    assert listed <= {"at-once/%d" % at for at in range(1000)}, sorted(listed - stored)


async def send_at_once(ip, count):
    return await asyncio.gather(*[send_one(ip, "at-once/%d" % at) for at in range(count)])


async def send_one(ip, key):
    form = (
        b'--B\r\nContent-Disposition: form-data; name="key"\r\n\r\n%s\r\n'
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n%s\r\n--B--\r\n'
    ) % (key.encode(), bytes(20_000))
    head = (
        "POST /api/upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
    ) % len(form)
    reader, writer = await asyncio.open_connection(ip, 5058)
    writer.write(head.encode() + form)
    answer = (await asyncio.wait_for(reader.read(), 120)).decode()
    writer.close()
    status = int(answer.split()[1])
    assert status != 503 or "retry-after: " in answer.lower(), answer
    return status


def members(node):
    with requests.get(node + "/api/events", stream=True, timeout=TIMEOUT) as response:
        for line in response.iter_lines(decode_unicode=True):
            if line.startswith("data: "):
                found = json.loads(line[len("data: "):])["members"]
                if len(found) == 3 and all(member["state"] == "up" for member in found):
                    return


main()
