"""Signs and verifies with dkimpy: a line of JSON in, a line of JSON out. The first line has the DNS."""
import base64
import json
import sys

import dkim

dns = json.loads(sys.stdin.readline())


def txt(name, timeout=5):
    return dns.get(name.decode().rstrip("."), "").encode()


def verify(msg):
    d = dkim.DKIM(msg, logger=None)
    out = []
    for i in range(sum(1 for name, _ in d.headers if name.lower() == b"dkim-signature")):
        try:
            out.append(bool(dkim.DKIM(msg).verify(idx=i, dnsfunc=txt)))
        except Exception:  # it has many, and raises others by accident
            out.append(False)
    return out


def arc(msg):
    try:
        cv, _, reason = dkim.arc_verify(msg, dnsfunc=txt)
    except Exception as e:
        return ["fail", repr(e)]
    return [(cv or b"none").decode(), str(reason)]


for line in sys.stdin:
    q = json.loads(line)
    msg = base64.b64decode(q["message"])
    key = q.get("key", "").encode()
    try:
        if q["do"] == "verify":
            answer = verify(msg)
        elif q["do"] == "arc":
            answer = arc(msg)
        elif q["do"] == "sign":
            form = tuple(f.encode() for f in q["form"])
            field = dkim.sign(msg, b"s1", b"example.com", key, canonicalize=form, length=q["length"])
            answer = base64.b64encode(field).decode()
        else:
            fields = dkim.arc_sign(msg, b"s1", b"example.com", key, b"relay.example")
            answer = base64.b64encode(b"".join(fields)).decode()
    except Exception as e:
        answer = {"error": repr(e)}
    print(json.dumps(answer), flush=True)
