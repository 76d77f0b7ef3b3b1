"""Hands in a message with smtplib. Its argument is JSON: host, port, from, to, file, mail and rcpt (parameters)."""
import json
import smtplib
import sys

o = json.loads(sys.argv[1])
with open(o["file"], "rb") as f:
    text = f.read()
with smtplib.SMTP(o["host"], o["port"], local_hostname="smtplib.example", timeout=50) as s:
    s.ehlo()
    refused = s.sendmail(o["from"], o["to"], text, mail_options=o["mail"] or [], rcpt_options=o["rcpt"] or [])
if refused:
    sys.exit(f"refused: {refused}")
