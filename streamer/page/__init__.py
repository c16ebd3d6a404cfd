"""The page that the server offers to browsers, and the JavaScript client that it is made with.

The files beside this module are what a browser gets: no build step, and nothing from another host.
"""
