"""A PostgreSQL connection with nothing but the standard library.

Speaks protocol version 3: SCRAM-SHA-256 authentication and the extended query
with text parameters. Values come back as strings, NULL as None.
"""

import base64
import hashlib
import hmac
import os
import socket
import struct


class Error(Exception):
    """What the server refused, in its words."""


class Connection:
    def __init__(self, host, user, password, database=None, port=5432, timeout=5):
        self.socket = socket.create_connection((host, port), timeout)
        self.stream = self.socket.makefile("rb")
        startup = b"".join(
            text.encode() + b"\0"
            for text in ("user", user, "database", database or user, "")
        )
        self.socket.sendall(struct.pack("!ii", len(startup) + 8, 3 << 16) + startup)
        self._authenticate(password)
        while self._receive()[0] != b"Z":
            pass

    def close(self):
        self.socket.sendall(b"X\0\0\0\4")
        self.stream.close()
        self.socket.close()

    def query(self, sql, *parameters):
        """Runs one statement; returns its rows as lists."""
        bind = b"\0\0" + struct.pack("!hh", 0, len(parameters))
        for value in parameters:
            if value is None:
                bind += struct.pack("!i", -1)
            else:
                encoded = str(value).encode()
                bind += struct.pack("!i", len(encoded)) + encoded
        bind += struct.pack("!h", 0)
        self._send(b"P", b"\0" + sql.encode() + b"\0\0\0")
        self._send(b"B", bind)
        self._send(b"E", b"\0\0\0\0\0")
        self._send(b"S", b"")
        rows, error = [], None
        while True:
            kind, body = self._receive(raising=False)
            if kind == b"D":
                rows.append(self._row(body))
            elif kind == b"E":
                error = self._error(body)
            elif kind == b"Z":
                if error:
                    raise error
                return rows

    @staticmethod
    def _row(body):
        values, at = [], 2
        for _ in range(struct.unpack_from("!h", body)[0]):
            (length,) = struct.unpack_from("!i", body, at)
            at += 4
            if length < 0:
                values.append(None)
            else:
                values.append(body[at : at + length].decode())
                at += length
        return values

    @staticmethod
    def _error(body):
        fields = {f[:1]: f[1:].decode() for f in body.split(b"\0") if f}
        return Error(fields.get(b"M", "unknown error"))

    def _send(self, kind, body):
        self.socket.sendall(kind + struct.pack("!i", len(body) + 4) + body)

    def _receive(self, raising=True):
        header = self.stream.read(5)
        if len(header) < 5:
            raise Error("the server closed the connection")
        kind, length = header[:1], struct.unpack("!i", header[1:])[0]
        body = self.stream.read(length - 4)
        if kind == b"E" and raising:
            raise self._error(body)
        return kind, body

    def _authentication(self, wanted):
        kind, body = self._receive()
        (code,) = struct.unpack_from("!i", body)
        if kind != b"R" or code not in wanted:
            raise Error("the server asks for an authentication that is not known here")
        return code, body[4:]

    def _authenticate(self, password):
        """RFC 5802 and 7677, without channel binding."""
        code, _ = self._authentication((0, 10))
        if code == 0:
            return
        nonce = base64.b64encode(os.urandom(18)).decode()
        first = "n=,r=" + nonce
        message = ("n,," + first).encode()
        self._send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(message)) + message)
        challenge = self._authentication((11,))[1].decode()
        fields = dict(part.split("=", 1) for part in challenge.split(","))
        salted = hashlib.pbkdf2_hmac(
            "sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"])
        )
        final = "c=biws,r=" + fields["r"]
        signed = ",".join((first, challenge, final)).encode()

        def mac(key, text):
            return hmac.new(key, text, "sha256").digest()

        key = mac(salted, b"Client Key")
        signature = mac(hashlib.sha256(key).digest(), signed)
        proof = bytes(a ^ b for a, b in zip(key, signature))
        self._send(b"p", (final + ",p=" + base64.b64encode(proof).decode()).encode())
        answer = self._authentication((12,))[1]
        expected = base64.b64encode(mac(mac(salted, b"Server Key"), signed))
        if answer != b"v=" + expected:
            raise Error("the server does not know the password either")
        self._authentication((0,))
