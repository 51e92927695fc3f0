# Verifies every DKIM signature of the files with python3-dkim, and says "pass" or
# "fail" for each. Usage: verify.py DIRECTORY-OF-RECORDS FILE...
import os
import sys

import dkim

directory = sys.argv[1]


def lookup(name, timeout=5):
    name = name.decode() if isinstance(name, bytes) else name
    path = os.path.join(directory, name.rstrip("."))
    if not os.path.exists(path):
        return None
    with open(path, "rb") as f:
        return f.read()


for path in sys.argv[2:]:
    with open(path, "rb") as f:
        message = f.read()
    signatures = sum(line.lower().startswith(b"dkim-signature:") for line in message.split(b"\r\n"))
    for i in range(signatures):
        verifier = dkim.DKIM(message, minkey=1024)
        try:
            good = verifier.verify(idx=i, dnsfunc=lookup)
        except dkim.DKIMException as e:
            good = False
            print(e)
        print(os.path.basename(path), i, "pass" if good else "fail")
