"""The page that ``flanneld --ui`` serves: files beside this one, and the events that keep them up to date.

Rules of this folder
  1. The page only shows.  It asks for nothing but its own files and events, and works without any other network.
  2. Whatever an agent tells was perhaps written by somebody else: the page makes text of it and never anything more,
     and its Content-Security-Policy would not let it do otherwise.
  3. While nobody looks, this costs nothing; nothing of it is loaded before somebody does.
"""
