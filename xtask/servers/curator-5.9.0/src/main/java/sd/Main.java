package sd;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.Map;
import java.util.concurrent.CountDownLatch;

import com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryForever;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.curator.x.discovery.details.JsonInstanceSerializer;
import org.apache.curator.x.discovery.details.ServiceCacheListener;
import org.springframework.cloud.zookeeper.discovery.ZookeeperInstance;

/**
 * Registers an instance, or shows those of a service, as a Spring application would.
 *
 * <p>{@code watch HOST:PORT BASE SERVICE} prints each set that it gets, as JSON on a line;
 * {@code register HOST:PORT BASE SERVICE ID ADDRESS PORT} lasts, as the watch does, until the signal TERM.
 */
public final class Main {
    private Main() {}

    public static void main(String[] args) throws Exception {
        if (args.length < 4) {
            throw new IllegalArgumentException("usage: curator watch|register HOST:PORT BASE SERVICE …");
        }
        try (CuratorFramework client =
                CuratorFrameworkFactory.newClient(args[1], 10_000, 10_000, new RetryForever(200))) {
            client.start();
            client.blockUntilConnected();
            try (var discovery = discovery(client, args[2])) {
                discovery.start();
                switch (args[0]) {
                    case "watch" -> watch(discovery, args[3]);
                    case "register" -> register(discovery, args);
                    default -> throw new IllegalArgumentException(args[0]);
                }
            }
        }
    }

    private static ServiceDiscovery<ZookeeperInstance> discovery(CuratorFramework client, String base) {
        return ServiceDiscoveryBuilder.builder(ZookeeperInstance.class)
                .client(client)
                .basePath(base)
                .serializer(new JsonInstanceSerializer<>(ZookeeperInstance.class))
                .build();
    }

    private static void register(ServiceDiscovery<ZookeeperInstance> discovery, String[] args) throws Exception {
        var payload = new ZookeeperInstance(args[4], args[3], Map.of("language", "java"));
        var instance = ServiceInstance.<ZookeeperInstance>builder()
                .name(args[3])
                .id(args[4])
                .address(args[5])
                .port(Integer.parseInt(args[6]))
                .payload(payload)
                .build();
        discovery.registerService(instance);
        System.out.println("registered");
        untilTerminated();
        discovery.unregisterService(instance);
    }

    private static void watch(ServiceDiscovery<ZookeeperInstance> discovery, String service) throws Exception {
        try (var cache = discovery.serviceCacheBuilder().name(service).build()) {
            cache.addListener(new ServiceCacheListener() {
                @Override
                public void cacheChanged() {
                    print(cache.getInstances());
                }

                @Override
                public void stateChanged(CuratorFramework client, ConnectionState state) {}
            });
            cache.start();
            print(cache.getInstances());
            untilTerminated();
        }
    }

    private static synchronized void print(Iterable<ServiceInstance<ZookeeperInstance>> instances) {
        var shown = new ArrayList<Map<String, Object>>();
        for (var instance : instances) {
            var payload = instance.getPayload();
            shown.add(Map.of(
                    "id", instance.getId(),
                    "address", instance.getAddress(),
                    "port", instance.getPort() == null ? 0 : instance.getPort(),
                    "ssl_port", instance.getSslPort() == null ? 0 : instance.getSslPort(),
                    "metadata", payload == null ? Map.of() : payload.getMetadata()));
        }
        shown.sort(Comparator.comparing(it -> it.get("id").toString()));
        try {
            System.out.println(new ObjectMapper().writeValueAsString(shown));
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    /** The process ends after what comes behind this. */
    private static void untilTerminated() throws InterruptedException {
        var terminated = new CountDownLatch(1);
        var main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            terminated.countDown();
            try {
                main.join(5_000);
            } catch (InterruptedException ended) {
                Thread.currentThread().interrupt();
            }
        }));
        terminated.await();
    }
}
