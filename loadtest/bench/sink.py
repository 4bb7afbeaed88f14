"""An upstream that reads an upload to its end before it answers.

nginx's `return` answers at once and throws the body away afterwards, which would measure how a proxy
treats an early answer instead of how it carries a body.

    python3 sink.py PORT
"""

import http.server
import sys


class Sink(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        count = 0
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                count += self.discard(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            count = self.discard(int(self.headers["Content-Length"]))
        answer = b"%d\n" % count
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def discard(self, size: int) -> int:
        left = size
        while left:
            piece = self.rfile.read1(min(left, 1 << 20))
            if not piece:
                break
            left -= len(piece)
        return size - left

    def log_message(self, *_) -> None:
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Sink).serve_forever()
