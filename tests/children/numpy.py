"""What a child process of a test finds instead of numpy, until it uses it.

pyvisa imports numpy where it is installed, for the arrays that an instrument may send, so every server with an
instrument does. Hardly a server of a test ever has an array.
"""

from late import whole

__getattr__ = whole(__name__)
