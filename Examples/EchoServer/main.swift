print("EchoServer")
