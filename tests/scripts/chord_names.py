"""What the old scripts agree on: chunk names, keys, and how a node is asked."""
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
    """The [ip, port, id] of the node that owns the key, asked as the scripts always asked: a new client each time."""
    client = msgpackrpc.Client(msgpackrpc.Address(ip, 5057), timeout=10)
    if create_first:
        client.call("create")
    node = client.call("find_successor", key)
    client.close()
    return text(node[0]), node[1], node[2]
