#!/bin/sh
# Says where the containers of docker-compose.yml are reached.
set -eu
echo 'Grafana     http://127.0.0.1:3000'
echo 'Prometheus  http://127.0.0.1:9090'
if [ "${1:-}" = watch ]; then
    host=$("$(dirname -- "$0")/compose-host.sh")
    echo 'They look at the finstream on this host, which asks readers of PostgreSQL for a password and viewers for none:'
    if [ "$host" = 127.0.0.1 ]; then
        echo '  finstream --pg-listen 127.0.0.1:5433'
    else
        # Not loopback, so --insecure-listen has to be said.
        echo "  finstream --http $host:8080 --pg-listen $host:5433 --insecure-listen"
        echo "Its page is at http://$host:8080 then. $host is the address of Docker's bridge, which other machines have no route to."
    fi
    exit
fi
echo 'Console     http://127.0.0.1:8090'
echo 'Pages       http://127.0.0.1:8081 (producer)  http://127.0.0.1:8082 (consumer)'
echo 'Kafka API   127.0.0.1:19092'
echo 'PostgreSQL  127.0.0.1:15432  (password: .secrets/postgres_password)'
echo 'scripts/compose-finstream.sh runs finstream on this host against them.'
