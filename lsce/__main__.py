from lsce.cli import main

main()
