"""The cloud on one machine: simulates Amazon EC2 Auto Scaling for storage nodes, without an account.

moto answers the requests of which only the shape matters. What it lacks (lifecycle hooks, alarms that fire, cooldowns,
zones, rights, running instances) is modelled here, in front of it and below it. So nothing is faked inside the node:
its real requests receive real answers, and its instances are network namespaces with an address, a metadata service and
a disk of their own.

    models/      the decisions of the services, pure: alarms, hooks, cooldowns, the choice of instances to terminate
    wire/        requests and answers as bytes: AWS's query protocol
    *.py         the parts that have a clock, sockets, processes
    scenarios/   the tests, one scenario a file
    checks/      the harness's own tests
"""
