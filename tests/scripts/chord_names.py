"""Shared by the old scripts: chunk names, keys, and the look-up of a key's owner."""
import hashlib

import msgpackrpc

CHUNK_SIZE = 4000


def chunk_name(filename, index):
    return "%s_chunk_%d" % (filename, index)


def key_of(name):
    digest = hashlib.md5(name.encode()).hexdigest()
    return int(digest, 16) % (1 << 32)


def text(raw):
    return raw.decode() if isinstance(raw, bytes) else raw


def successor(ip, key, create_first=False):
    """Returns [ip, port, id] of the node that owns the key. It makes a new client for each call, as the old scripts
    do."""
    client = msgpackrpc.Client(msgpackrpc.Address(ip, 5057), timeout=10)
    if create_first:
        client.call("create")
    node = client.call("find_successor", key)
    client.close()
    return text(node[0]), node[1], node[2]
