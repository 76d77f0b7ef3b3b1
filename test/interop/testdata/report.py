"""Reads a message on standard input and prints as JSON what it says as a delivery report."""
import email
import email.policy
import json
import sys

strict = email.policy.default
m = email.message_from_binary_file(sys.stdin.buffer, policy=strict)


def fields(block):
    return {k.lower(): str(v) for k, v in block.items()}


def blocks(part):
    if part.get_content_type() == "message/delivery-status":
        return [fields(b) for b in part.get_payload() if b.items()]
    first = part.get_payload(0)  # message/global-delivery-status: to this package a message whose body is the other blocks
    rest = first.get_payload(decode=True).decode("utf-8").strip()
    return [fields(first)] + [fields(email.message_from_string(b, policy=strict)) for b in rest.split("\n\n") if b.strip()]


def leaves(part):
    """All text of a part and what is in it, in order."""
    if part.is_multipart():
        return "".join(leaves(p) for p in part.get_payload())
    return part.get_content() if part.get_content_maintype() == "text" else ""


out = {
    "type": m.get_content_type(),
    "report_type": m.get_param("report-type") or "",
    "header": fields(m),
    "parts": [p.get_content_type() for p in m.iter_parts()] if m.is_multipart() else [],
    "defects": [str(d) for p in m.walk() for d in p.defects],
}
if len(out["parts"]) > 1:
    parts = list(m.iter_parts())
    out["text"] = parts[0].get_content()
    status = [b for p in parts[1:2] for b in blocks(p)]
    out["message"], out["recipients"] = status[0], status[1:]
    if len(parts) > 2:
        returned = parts[2].get_payload(0) if parts[2].is_multipart() else email.message_from_string(parts[2].get_content(), policy=strict)
        out["returned"] = fields(returned)
        out["returned_text"] = leaves(returned) if parts[2].is_multipart() else ""
json.dump(out, sys.stdout)
