package sd;

import java.util.List;
import java.util.Map;

import com.netflix.appinfo.InstanceInfo;
import com.netflix.discovery.EurekaClient;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.cloud.client.ServiceInstance;
import org.springframework.cloud.client.discovery.DiscoveryClient;
import org.springframework.context.annotation.Configuration;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.RestController;

/** A Spring Cloud application, which registers itself, and shows the instances that it finds. */
@Configuration(proxyBeanMethods = false)
@EnableAutoConfiguration
@RestController
public class Client {
    private final DiscoveryClient discovery;
    private final EurekaClient eureka;

    public Client(DiscoveryClient discovery, EurekaClient eureka) {
        this.discovery = discovery;
        this.eureka = eureka;
    }

    /** The instances that a load balancer of Spring's would use. */
    @GetMapping("/found/{service}")
    public List<Map<String, Object>> found(@PathVariable("service") String service) {
        return discovery.getInstances(service).stream().map(Client::shown).toList();
    }

    /** The status of every instance, the unfit ones too. */
    @GetMapping("/statuses/{service}")
    public List<String> statuses(@PathVariable("service") String service) {
        var application = eureka.getApplication(service);
        if (application == null) {
            return List.of();
        }
        return application.getInstancesAsIsFromEureka().stream().map(InstanceInfo::getStatus).map(Enum::name).toList();
    }

    private static Map<String, Object> shown(ServiceInstance instance) {
        return Map.of(
                "id", instance.getInstanceId(),
                "host", instance.getHost(),
                "port", instance.getPort(),
                "secure", instance.isSecure(),
                "metadata", instance.getMetadata());
    }
}
