"""Sends one message with smtplib: send.py HOST PORT FROM TO SUBJECT < TEXT"""

import smtplib
import sys
from email.message import EmailMessage

host, port, sender, to, subject = sys.argv[1:]
message = EmailMessage()
message["From"], message["To"], message["Subject"] = sender, to, subject
message.set_content(sys.stdin.read())
with smtplib.SMTP(host, int(port), timeout=10) as server:
    server.send_message(message)
