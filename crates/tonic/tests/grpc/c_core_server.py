"""A server of gRPC's C core with its defaults: a stream of two messages, and silence between them.

Usage: c_core_server.py SECONDS CERTIFICATE KEY. Prints two ports, in the clear and with TLS, and
ends with its standard input.
"""

import sys
import time
from concurrent import futures

import grpc


def repeat(request, _context):
    yield request
    time.sleep(float(sys.argv[1]))
    yield request


def read(path):
    with open(path, "rb") as file:
        return file.read()


method = grpc.unary_stream_rpc_method_handler(repeat)
server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", {"Repeat": method}),))
credentials = grpc.ssl_server_credentials([(read(sys.argv[3]), read(sys.argv[2]))])
ports = server.add_insecure_port("127.0.0.1:0"), server.add_secure_port("127.0.0.1:0", credentials)
server.start()
print(*ports, flush=True)
sys.stdin.read()
server.stop(None)
