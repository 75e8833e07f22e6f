# Verifies every DKIM signature of a message with dkimpy: verify.py ZONE <message. ZONE is a JSON object of TXT records by name. It
# says how many signatures are good, and fails when one is not.
import json
import sys

import dkim

with open(sys.argv[1]) as f:
    zone = json.load(f)


def txt(name, timeout=5):
    return zone.get(name.decode("ascii").rstrip("."), "").encode("ascii")


message = sys.stdin.buffer.read()
verifier = dkim.DKIM(message)
count = sum(1 for name, _ in verifier.headers if name.lower() == b"dkim-signature")
for i in range(count):
    if not dkim.DKIM(message).verify(idx=i, dnsfunc=txt):
        sys.exit("signature %d is not good" % i)
print("%d good" % count)
