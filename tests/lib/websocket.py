"""A WebSocket client for tests, of bytes: it sends what it is told to, right or wrong."""
import base64
import json
import os
import socket
import struct


class Refused(Exception):
    def __init__(self, status, headers, body):
        super().__init__(f"{status}: {body!r}")
        self.status, self.headers, self.body = status, headers, body


class WebSocket:
    def __init__(self, address, port, path, token, headers=None, protocol="orca.exec.v1", timeout=10):
        self.socket = socket.create_connection((address, port), timeout)
        self.buffer = b""
        lines = {"Host": f"{address}:{port}", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                 "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(), "Sec-WebSocket-Protocol": protocol, "Authorization": f"Bearer {token}"}
        lines.update(headers or {})
        self.socket.sendall((f"GET {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items() if v is not None) + "\r\n").encode())
        while b"\r\n\r\n" not in self.buffer:
            piece = self.socket.recv(65536)
            if not piece:
                raise ConnectionError("closed within the head")
            self.buffer += piece
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        first, *rest = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in rest}
        if self.status != 101:
            length = int(self.headers.get("content-length", 0))
            while len(self.buffer) < length:
                self.buffer += self.socket.recv(65536)
            self.socket.close()
            raise Refused(self.status, self.headers, self.buffer)

    def send_raw(self, data):
        self.socket.sendall(data)

    def frame(self, opcode, payload=b"", fin=True, mask=True, rsv=0, length=None):
        """length: what the head says, when it lies."""
        said = len(payload) if length is None else length
        head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
        bit = 0x80 if mask else 0
        head += bytes([bit | said]) if said < 126 else bytes([bit | 126]) + struct.pack(">H", said) if said < 65536 else bytes([bit | 127]) + struct.pack(">Q", said)
        if not mask:
            return head + payload
        key = os.urandom(4)
        return head + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))

    def send(self, channel, payload=b""):
        self.send_raw(self.frame(2, bytes([channel]) + payload))

    def control(self, **what):
        self.send(3, json.dumps(what).encode())

    def _take(self, count):
        while len(self.buffer) < count:
            piece = self.socket.recv(65536)
            if not piece:
                raise ConnectionError("closed")
            self.buffer += piece
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def receive(self):
        """(opcode, payload) of the next frame; the server must not mask."""
        first, second = self._take(2)
        assert not second & 0x80, "a server's frame is masked"
        length = second & 0x7f
        if length == 126:
            length = struct.unpack(">H", self._take(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", self._take(8))[0]
        return first & 0xf, self._take(length)

    def until_end(self, pong=True):
        """Everything to the close: (stdout, stderr, [controls], close code or None)."""
        out, err, controls, code = b"", b"", [], None
        while True:
            try:
                opcode, payload = self.receive()
            except (ConnectionError, TimeoutError):
                return out, err, controls, code
            if opcode == 8:
                code = struct.unpack(">H", payload[:2])[0] if payload else 1005
                try:
                    self.send_raw(self.frame(8, payload[:2]))
                except OSError:
                    pass
            elif opcode == 9 and pong:
                self.send_raw(self.frame(10, payload))
            elif opcode == 2 and payload[0] == 1:
                out += payload[1:]
            elif opcode == 2 and payload[0] == 2:
                err += payload[1:]
            elif opcode == 2 and payload[0] == 3:
                controls.append(json.loads(payload[1:]))

    def close(self):
        self.socket.close()
