"""A store on loopback that speaks S3 and asks who is there, which moto does not."""

import re
import threading
from contextlib import contextmanager

PERMANENT = ("AKIAPERMANENT", "secret-of-ever", None)
TEMPORARY = ("ASIATEMPORARY", "secret-of-the-hour", "token-of-the-hour")
"""Access key, secret key, session token."""
_REFUSALS = {
    "AccessDenied": ("403 Forbidden", "Access Denied"),
    "ExpiredToken": ("400 Bad Request", "The provided token has expired."),
    "InvalidAccessKeyId": ("403 Forbidden", "The AWS Access Key Id you provided does not exist in our records."),
}
_KEY = re.compile(r"Credential=([^/]+)/")


class _Doorkeeper:
    """Refuses who has no key that it knows, whoever writes objects to `readonly`, and everybody in `expired`."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        if (code := self.refusal(environ)) is None:
            return self.app(environ, start_response)
        status, message = _REFUSALS[code]
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def refusal(self, environ):
        key = _KEY.search(environ.get("HTTP_AUTHORIZATION", ""))
        shown = (key[1] if key else None, environ.get("HTTP_X_AMZ_SECURITY_TOKEN"))
        if shown not in [(access, token) for access, _, token in (PERMANENT, TEMPORARY)]:
            return "InvalidAccessKeyId"
        _, bucket, *key = environ["PATH_INFO"].split("/")
        if bucket == "readonly" and key and environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return "AccessDenied"
        return "ExpiredToken" if bucket == "expired" else None


@contextmanager
def serving(*buckets):
    """A store with these buckets. Yields its endpoint and a client of boto3."""
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_):
            pass

    app = _Doorkeeper(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    access, secret, _ = PERMANENT
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=access, aws_secret_access_key=secret
    )
    try:
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)
        yield endpoint, client
    finally:
        server.shutdown()
        server.server_close()
