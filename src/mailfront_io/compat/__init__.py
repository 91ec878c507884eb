"""The original's programs, one a file: drop-in replacements under tcpserver, inetd and the like."""
