// Command gokit follows services and registers instances by go-kit's own packages, for tests:
//
//	gokit watch-zookeeper HOST:PORT PATH
//	gokit register-zookeeper HOST:PORT PATH NAME DATA
//	gokit watch-eureka URL APPLICATION
//
// A watch prints each set that it gets, as JSON on a line. A registration ends with the signal TERM.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/eureka"
	"github.com/go-kit/kit/sd/zk"
	"github.com/go-kit/log"
	"github.com/hudl/fargo"
)

const version = "go-kit 0.13.0"

var logger = log.NewLogfmtLogger(os.Stderr)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gokit:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "--version":
		fmt.Println(version)
		return nil
	case len(args) == 3 && args[0] == "watch-zookeeper":
		client, err := zk.NewClient(args[1:2], logger)
		if err != nil {
			return err
		}
		instancer, err := zk.NewInstancer(client, args[2], logger)
		if err != nil {
			return err
		}
		return watch(instancer)
	case len(args) == 5 && args[0] == "register-zookeeper":
		client, err := zk.NewClient(args[1:2], logger)
		if err != nil {
			return err
		}
		service := zk.Service{Path: args[2], Name: args[3], Data: []byte(args[4])}
		registrar := zk.NewRegistrar(client, service, logger)
		registrar.Register()
		untilTerminated()
		registrar.Deregister()
		client.Stop()
		return nil
	case len(args) == 3 && args[0] == "watch-eureka":
		connection := fargo.NewConn(args[1])
		connection.PollInterval = time.Second
		return watch(eureka.NewInstancer(&connection, args[2], logger))
	}
	return errors.New("usage: gokit watch-zookeeper|register-zookeeper|watch-eureka …")
}

// watch prints sets until the process is terminated.
func watch(instancer sd.Instancer) error {
	events := make(chan sd.Event)
	// It sends the present set before it returns.
	go instancer.Register(events)
	for event := range events {
		if event.Err != nil {
			fmt.Fprintln(os.Stderr, "gokit: watch:", event.Err)
			continue
		}
		instances := append([]string{}, event.Instances...)
		slices.Sort(instances)
		line, err := json.Marshal(instances)
		if err != nil {
			return err
		}
		fmt.Println(string(line))
	}
	return nil
}

func untilTerminated() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
}
