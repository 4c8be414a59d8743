@rem Check this folder and install it, without a network. NOT TRIED on Windows: install.py was tried on Linux alone.
@cd /d "%~dp0"
@py -3 install.py %*
