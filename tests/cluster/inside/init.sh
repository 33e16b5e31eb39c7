#!/bin/bash
# PID 1 of a machine: starts the daemons of its roles, then starts others on request ("start NAME [NODE]" lines in
# /run/box.requests) and reaps. Every daemon stays in the foreground, so its pid is known to the kernel and to us.
umount -l /.old
cd / || exit 1
umask 022
trap 'exit 0' TERM INT
mkdir -p /run/sshd /run/munge /run/slurm /run/mysqld /run/lock /var/log/slurm /var/spool/slurmd
chown munge:munge /run/munge
chmod 711 /run/munge
chown slurm:slurm /run/slurm /var/log/slurm
chown mysql:mysql /run/mysqld
mkfifo -m 600 /run/box.requests
exec 3<>/run/box.requests

as() { local user=$1; shift; exec setpriv --reuid="$user" --regid="$user" --init-groups "$@"; }
sql() { mariadb --no-defaults -uroot -S /run/mysqld/mysqld.sock "$@"; }
until_true() { local i; for ((i = 0; i < $1; i++)); do "${@:2}" >/dev/null 2>&1 && return; sleep .05; done; return 1; }
answers() { (: <"/dev/tcp/$1/$2"); }

daemon() { # NAME [NODE]: becomes the daemon
  case $1 in
  munged) as munge munged -F --num-threads=4 ;;
  sshd) exec /usr/sbin/sshd -D -e ;;
  mariadbd)
    exec mariadbd --no-defaults --user=mysql --datadir=/var/lib/mysql --socket=/run/mysqld/mysqld.sock \
      --bind-address=127.0.0.1 --port=3306 --innodb-buffer-pool-size=128M --innodb-log-file-size=64M \
      --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 --skip-log-bin --skip-name-resolve ;;
  slurmdbd) as slurm slurmdbd -D ;;
  slurmctld) as slurm slurmctld -D ;;
  slurmd) exec slurmd -D -N "$2" ;;
  *) echo "init.sh: no daemon called $1" >&2; exit 64 ;;
  esac
}
start() { (exec 3<&-; daemon "$@") >>"/var/log/box-$1${2:+-$2}.log" 2>&1 </dev/null & }

boot_controller() {
  if [ ! -d /var/lib/mysql/mysql ]; then
    chown mysql:mysql /var/lib/mysql
    mariadb-install-db --no-defaults --user=mysql --datadir=/var/lib/mysql \
      --auth-root-authentication-method=normal --skip-test-db >/var/log/box-mysql-install.log 2>&1
  fi
  start mariadbd
  until_true 600 sql -e 'select 1'
  sql -e "create database if not exists slurm_acct_db;
    create user if not exists slurm@'127.0.0.1' identified by 'slurmpw';
    grant all on slurm_acct_db.* to slurm@'127.0.0.1'"
  chown slurm:slurm /var/spool/slurmctld
  start slurmdbd
  until_true 600 answers "$MACHINE" 6819
  sacctmgr -i add cluster box
  sacctmgr -i add account proj1,proj2
  sacctmgr -i add user alice Account=proj1,proj2 DefaultAccount=proj1
  sacctmgr -i add user bob Account=proj2 DefaultAccount=proj2
  start slurmctld
}

start munged
start sshd
until_true 200 munge -n
case $ROLES in *controller*) boot_controller >/var/log/box-boot.log 2>&1 ;; esac
if [ -n "$SLURM_NODES" ]; then
  until_true 1200 answers ctl 6817 # a slurmd that comes first retries ever more rarely
  for node in $SLURM_NODES; do start slurmd "$node"; done
fi
while :; do
  read -r -u 3 verb name node && [ "$verb" = start ] && start "$name" ${node:+"$node"}
done
